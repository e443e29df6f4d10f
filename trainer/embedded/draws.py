"""Seeded draws that give the same values on every Python; not a general random source.

Python promises the same sequence from `Random.random()` alone ("Notes on Reproducibility" in the documentation of `random`), so
every draw here is made of that one call.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of draws named by a text: equal names give equal draws."""

    def __init__(self, name: str) -> None:
        self._random = random.Random(name)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def one(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options, in the order drawn."""
        left = list(options)
        return [left.pop(int(self._random.random() * len(left))) for _ in range(count)]
