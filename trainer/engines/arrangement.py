"""Do streams that share a base go through it together or one after another?  Whichever is faster here, measured while they train.

Both give each stream the same training but for the last bits, so that nothing is lost by measuring.
"""

from __future__ import annotations

import time
from statistics import median

from trainer.loop.loop import Loop

WARM_UP_TICKS = 2
"""Not counted: what is allocated once comes with them."""
PATTERN = (False, True, True, False, False, True)
"""Whether each measured tick goes one after another: what drifts meets both alike."""


class Arrangement:
    """Chooses `loop.exact` before each tick; measures anew when the number of streams has doubled or halved."""

    def __init__(self, loop: Loop, *, is_open: bool) -> None:
        """`is_open`: the choice is left to it."""
        self.loop, self.is_open = loop, is_open
        self._streams = 0
        """How many there were when it was measured, or is being measured."""
        self._ticks = 0
        self._rates: dict[bool, list[float]] = {}
        """Tokens per second of the measured ticks, by whether they went one after another."""

    def tick(self) -> str | None:
        """One tick of the loop; returns what was decided, with the numbers, where it was."""
        count = len(self.loop.running)
        if not self.is_open or count < 2:
            self.loop.tick()
            return None
        if not self._streams / 2 < count < self._streams * 2:
            self._streams, self._ticks, self._rates = count, 0, {False: [], True: []}
        if self._ticks < WARM_UP_TICKS + len(PATTERN):
            return self._measured()
        self.loop.tick()
        return None

    def _measured(self) -> str | None:
        at = self._ticks - WARM_UP_TICKS
        self._ticks += 1
        self.loop.exact = at >= 0 and PATTERN[at]
        began = time.perf_counter()
        tokens = self.loop.tick()
        if at >= 0:
            self._rates[PATTERN[at]].append(tokens / (time.perf_counter() - began))
        return self._decided() if at == len(PATTERN) - 1 else None

    def _decided(self) -> str:
        together, apart = median(self._rates[False]), median(self._rates[True])
        self.loop.exact = apart > together
        chosen = "one after another" if self.loop.exact else "together"
        return (
            f"{self._streams} streams go through the base {chosen}: {together:.0f} tokens/s together, "
            f"{apart:.0f} one after another"
        )
