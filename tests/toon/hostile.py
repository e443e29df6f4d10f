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


def seconds_of(text: str) -> tuple[float, str]:
    """The processor time of decoding a text once, and how that ended."""
    start = process_time()
    try:
        toon.decode(text)
        end = "value"
    except toon.ToonError as fault:
        end = fault.code
    return process_time() - start, end


def spent_seconds(text: str, rounds: int = 4) -> tuple[float, str]:
    """The least processor time of several, and how that ended."""
    return min(seconds_of(text) for _ in range(rounds))


TRIES, ROUNDS = 8, 4
NOISE_SECONDS = 0.0005
"""Added for what takes less than `SHORT_SECONDS`: there the clock and the caches weigh more than the document."""
SHORT_SECONDS = 0.002


def least_of_rounds(measure: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Two times that belong together, each the least of interleaved rounds: a slow moment of the machine meets both."""
    rounds = [measure() for _ in range(ROUNDS)]
    return min(first for first, _ in rounds), min(second for _, second in rounds)


def assert_within(measure: Callable[[], tuple[float, float]], factor: float) -> None:
    """The second time is at most so many times the first, in the best of a few tries."""
    found = []
    for _ in range(TRIES):
        first, second = least_of_rounds(measure)
        if second <= factor * first + (NOISE_SECONDS if second < SHORT_SECONDS else 0):
            return
        found.append(f"{first * 1e3:.2f} -> {second * 1e3:.2f} ms")
    raise AssertionError(f"more than {factor} times: {', '.join(found)}")


def assert_doubling(measure: Callable[[], tuple[float, float]]) -> None:
    """Twice the size takes at most 2.3 times the time."""
    assert_within(measure, 2.3)
