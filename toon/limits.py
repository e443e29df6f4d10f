"""How much a document may ask for; what goes beyond is a `ToonError` with code `limit`."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """The bounds within which any input, hostile or not, costs time in proportion to its size."""

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
