"""toon beside the official package toon-format: the same text out, the same verdict on damaged texts, the same values.

Seeds and numbers can be changed: `TOON_SEED=7 TORTURE=1 pytest tests/toon/test_differential.py`.

Deliberate differences, each allowed by the specification:

* Depth and size. We document limits (`toon.Limits`), toon-format uses up Python's stack. Section 15 allows limits.
* Numbers longer than 4,300 characters. toon-format refuses only integers of that length, we refuse every number (section 4).
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

import toon
from tests.toon.drawn import DELIMITERS, document, mutated

official = pytest.importorskip("toon_format", reason="the official package toon-format is not installed")

SEED = int(os.environ.get("TOON_SEED", "20261121"))
COUNT = 6000 * (20 if os.environ.get("TORTURE") else 1)


def verdict(decode: Any, text: str, strict: bool, error: type[Exception]) -> tuple[str, Any]:
    """('value', it) or ('error', None)."""
    try:
        return "value", decode(text, strict=strict)
    except error:
        return "error", None


def same(left: Any, right: Any) -> bool:
    """Equal as JSON values, in the same order, and true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return (
        left == right
        and isinstance(left, bool) == isinstance(right, bool)
        and isinstance(left, str) == isinstance(right, str)
    )


def test_random_documents_give_the_same_text_and_come_back_the_same() -> None:
    draw = random.Random(SEED)
    for number in range(COUNT):
        value, delimiter, indent = document(draw), draw.choice(DELIMITERS), draw.choice([2, 2, 2, 1, 4])
        text = toon.encode(value, delimiter=delimiter, indent=indent)
        assert text == official.encode(value, delimiter=delimiter, indent_size=indent), (SEED, number, value)
        assert same(toon.decode(text, indent=indent), official.decode(text, indent_size=indent)), (SEED, number, text)


def test_damaged_texts_get_the_same_verdict_and_the_same_value() -> None:
    draw = random.Random(SEED + 1)
    for number in range(COUNT):
        text = mutated(toon.encode(document(draw), delimiter=draw.choice(DELIMITERS)), draw)
        for strict in (True, False):
            ours = verdict(toon.decode, text, strict, toon.ToonError)
            theirs = verdict(official.decode, text, strict, official.ToonDecodeError)
            assert ours[0] == theirs[0] and same(ours[1], theirs[1]), (SEED, number, strict, text, ours, theirs)
