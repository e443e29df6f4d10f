"""Bounds on the size of a document; a document over one of them is a `ToonError` with code `limit`."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Within these bounds, the time for any input, hostile or not, is proportional to its size."""

    max_bytes: int = 256 * 1024 * 1024
    """Size of a document; for text the number of characters is taken, which is never more."""
    max_depth: int = 256
    """Arrays and objects inside one another, the outermost being 1 (nested field groups count too)."""
    max_columns: int = 16_384
    """Leaf fields of one header."""
    max_rows: int = 10_000_000
    """Values, items, rows or entries under one header."""
    max_digits: int = 4300
    """Characters of one number: Python's own bound for integers, kept because longer ones cost time in the square of their length."""


DEFAULT_LIMITS = Limits()
