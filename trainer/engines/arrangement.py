"""How streams that share a base go through it: together, one after another, or several at once, each on its share of the cores?

Whichever is fastest here, measured while they train.  All give each stream the same training but for the last bits, so that nothing is
lost by measuring.
"""

from __future__ import annotations

import time
from itertools import chain
from statistics import median
from typing import NamedTuple

from trainer.loop.loop import Loop

WARM_UP_TICKS = 2
"""Not counted: what is allocated once comes with them."""
ROUNDS = 3
"""Measured ticks of each way.  Every second round goes backwards: what drifts meets all alike."""


class Way(NamedTuple):
    exact: bool
    """Each stream has passes of its own."""
    threads: int = 1

    def __str__(self) -> str:
        if self.threads == 1:
            return "one after another" if self.exact else "together"
        return f"{self.threads} at a time" if self.exact else f"in {self.threads} groups at once"

    def taken(self, loop: Loop) -> None:
        loop.exact, loop.threads = self


TOGETHER = Way(exact=False)


def ways(loop: Loop) -> list[Way]:
    """Those that may be the fastest: one after another, each keeps all cores busy at most as well as several at once do."""
    count, threads = len(loop.running), loop.most_threads
    groups = [Way(exact=False, threads=threads)] if 1 < threads < count else []
    return [TOGETHER, *groups, Way(exact=True, threads=threads)]


class Arrangement:
    """Chooses `loop.exact` and `loop.threads` before each tick; measures anew when the number of streams has doubled or halved."""

    def __init__(self, loop: Loop, *, is_open: bool) -> None:
        """`is_open`: the choice is left to it."""
        self.loop, self.is_open = loop, is_open
        self._streams = 0
        """How many there were when it was measured, or is being measured."""
        self._to_come: list[Way] = []
        """Of the ticks that are left to measure, the last one first."""
        self._warm_up = 0
        self._rates: dict[Way, list[float]] = {}
        """Tokens per second of the measured ticks."""

    def tick(self) -> str | None:
        """One tick of the loop; returns what was decided, with the numbers, where it was."""
        count = len(self.loop.running)
        if self.is_open and count >= 2 and not self._streams / 2 < count < self._streams * 2:
            self._begin(count)
        if self._to_come and count >= 2:
            return self._measured()
        self.loop.tick()
        return None

    def _begin(self, count: int) -> None:
        found = ways(self.loop)
        rounds = [found if number % 2 == 0 else found[::-1] for number in range(ROUNDS)]
        self._streams, self._rates = count, {way: [] for way in found}
        self._warm_up, self._to_come = WARM_UP_TICKS, [*chain(*rounds)][::-1]
        TOGETHER.taken(self.loop)

    def _measured(self) -> str | None:
        if self._warm_up:
            self._warm_up -= 1
            self.loop.tick()
            return None
        way = self._to_come.pop()
        way.taken(self.loop)
        began = time.perf_counter()
        tokens = self.loop.tick()
        self._rates[way].append(tokens / (time.perf_counter() - began))
        return None if self._to_come else self._decided()

    def _decided(self) -> str:
        rates = {way: median(found) for way, found in self._rates.items()}
        chosen = max(rates, key=lambda way: rates[way])
        chosen.taken(self.loop)
        measured = ", ".join(f"{way} {rate:.0f}" for way, rate in rates.items())
        return f"{self._streams} streams go through the base {chosen}; tokens/s: {measured}"
