"""How long messages take to reach the coordinator, by type: from the sender's clock to the moment at which they are handled."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

STEPS_PER_OCTAVE = 8
"""Of the buckets in which latencies are counted: a percentile is read with an error of at most 9 %."""


@dataclass
class Latency:
    """Of one type of message, in milliseconds; a fixed amount of memory however many there are."""

    count: int = 0
    total_ms: float = 0.0
    max_ms: float = 0.0
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, ms: float) -> None:
        self.count += 1
        self.total_ms += ms
        self.max_ms = max(self.max_ms, ms)
        self._buckets[math.ceil(STEPS_PER_OCTAVE * math.log2(max(1.0, ms)))] += 1

    def percentile(self, share: float) -> float:
        """The latency that this share of the messages did not exceed."""
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= share * self.count:
                return min(self.max_ms, 2 ** (bucket / STEPS_PER_OCTAVE))
        return 0.0


class Latencies:
    """One per coordinator."""

    def __init__(self) -> None:
        self._by_type: dict[str, Latency] = {}

    def note(self, kind: str, sent_ms: int, now_ms: float) -> None:
        """A clock of another machine may be ahead of ours: no message takes less than no time."""
        self._by_type.setdefault(kind, Latency()).add(max(0.0, now_ms - sent_ms))

    def rows(self) -> list[dict[str, str | int | float]]:
        """A row for each type of message, in the order in which they were first heard."""
        return [
            {
                "type": kind, "count": one.count, "mean_ms": round(one.total_ms / one.count, 1),
                "p99_ms": round(one.percentile(0.99), 1), "max_ms": round(one.max_ms, 1),
            }
            for kind, one in self._by_type.items()
        ]  # fmt: skip
