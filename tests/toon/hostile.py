"""Hostile documents of any size, and ordinary ones to compare them with."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

import toon
from tests.toon.payloads import session, table

DOCUMENTS: dict[str, Callable[[int], str]] = {
    "an unterminated quote": lambda size: 'a: "' + "x" * size,
    "an unterminated quote of backslashes": lambda size: 'a: "' + "\\" * size,
    "nothing but quotes": lambda size: '"' * size,
    "pairs of quotes in a row": lambda size: "[1]{a}:\n  " + '""' * (size // 2),
    "a long integer": lambda size: "a: " + "1" * size,
    "a long fraction in a table": lambda size: "[2]{a}:\n  1\n  0." + "1" * size,
    "far more rows declared than there are": lambda size: (
        "[99999999999]{a,b}:\n" + "\n".join(["  17,value"] * (size // 11))
    ),
    "a declared length without end": lambda size: "a[" + "9" * size + "]: 1",
    "comment lines": lambda size: "\n".join(["# remark"] * (size // 9)),
    "comment lines between rows": lambda size: (
        f"[{size // 20}]{{a,b}}:\n" + "\n".join(["  1,x\n# comment"] * (size // 20))
    ),
    "blank lines": lambda size: "a: 1" + "\n" * size + "b: 2",
    "many columns": lambda size: "[1]{" + ",".join(f"c{number}" for number in range(size // 6)) + "}:\n  1",
    "a deep field list": lambda size: "[1]" + "{a" * (size // 2) + ":",
    "NUL characters": lambda size: "a: " + "\x00" * size,
    "colons": lambda size: ":" * size,
    "brackets": lambda size: "[" * size + ":",
    "braces": lambda size: "a[1]" + "{" * size + ":",
    "carriage returns": lambda size: "\r" * size,
    "spaces": lambda size: "a: " + " " * size + "b",
    "delimiters": lambda size: "[1]{a}:\n  " + "," * size,
    "escapes": lambda size: 'a: "' + "\\n" * (size // 2) + '"',
}
"""Each maps a size in characters to a document of about that size."""


def ordinary(size: int) -> str:
    """A document of about this size, half nested objects and half tables."""
    return toon.encode({"sessions": [session()] * max(1, size // 30_000), "events": table(max(1, size // 260))})


def spent_seconds(text: str, rounds: int = 4) -> tuple[float, str]:
    """The least processor time of decoding a text, and how that ended."""
    least, end = float("inf"), ""
    for _ in range(rounds):
        start = process_time()
        try:
            toon.decode(text)
            end = "value"
        except toon.ToonError as fault:
            end = fault.code
        least = min(least, process_time() - start)
    return least, end
