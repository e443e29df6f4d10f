"""Notices that the coordinator stood still: frozen by a signal, asleep with the machine, or kept from running.

Nobody could renew a lease or be heard meanwhile, so that no holder is to blame for its silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from swarm.log.clock import seconds_since_boot

BEAT_SECONDS = 0.25
LATE_SECONDS = 3.0
"""Later than this by its own clock, it stood still; a busy machine delays a beat by less."""


class Pulse:
    """One per coordinator; `beat` looks at the clock all the time, and the gaps tell."""

    def __init__(self, clock: Callable[[], float] = seconds_since_boot) -> None:
        self._clock = clock
        self._looked = clock()
        self._missed = 0.0
        self.awake_since = time.monotonic()
        """Monotonic time since which it has run without a gap: silence counts from there."""

    async def beat(self) -> None:
        self._looked = self._clock()
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self.look()

    def look(self) -> None:
        now = self._clock()
        gap, self._looked = now - self._looked, now
        if gap > LATE_SECONDS:
            self._missed += gap
            self.awake_since = time.monotonic()

    def missed_seconds(self) -> float:
        """How long it stood still since this was last asked."""
        self.look()
        missed, self._missed = self._missed, 0.0
        return missed
