"""How often each row is trained on in an epoch: equal rows once, datasets by their weights, a random part where one is asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

from swarm.policy.mixing import Strategy, mixed


class Selection:
    """Of rows in their order, each of one dataset; begins with every row once."""

    def __init__(self, sources: Sequence[int]) -> None:
        self.sources = sources
        self.times = [1] * len(sources)
        """By row; 0: it is left out."""

    @property
    def rows(self) -> int:
        return sum(self.times)

    def chosen(self) -> list[int]:
        return [row for row, times in enumerate(self.times) if times]

    def of_source(self, source: int) -> list[int]:
        return [row for row in self.chosen() if self.sources[row] == source]

    def leave_out(self, rows: frozenset[int]) -> None:
        for row in rows:
            self.times[row] = 0

    def dedupe(self, fingerprints: Sequence[bytes]) -> int:
        """The first of equal rows stays, whatever its dataset; returns how many were left out."""
        first: dict[bytes, int] = {}
        equal = [row for row in self.chosen() if first.setdefault(fingerprints[row], row) != row]
        self.leave_out(frozenset(equal))
        return len(equal)

    def ablate(self, count: int, seed: int) -> None:
        """A random part, in the order of the rows."""
        chosen = self.chosen()
        kept = set(random.Random(seed).sample(chosen, min(count, len(chosen))))
        self.leave_out(frozenset(row for row in chosen if row not in kept))

    def mix(self, parts: Sequence[Fraction], strategy: Strategy, seed: int, *, most: int | None = None) -> list[int]:
        """Each dataset its part; returns the rows of each.  Raises UserError where one has none."""
        by_source = [self.of_source(source) for source in range(len(parts))]
        wanted = mixed([len(rows) for rows in by_source], parts, strategy, most)
        draw = random.Random(seed)
        for rows, count in zip(by_source, wanted, strict=True):
            whole, rest = divmod(count, len(rows))
            once_more = set(draw.sample(rows, rest))
            for row in rows:
                self.times[row] = whole + (row in once_more)
        return wanted
