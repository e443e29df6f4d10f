"""The best held-out loss over the course of a run, and whether it still gets better; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from swarm.policy.halving import FIGURE
from swarm.state import State

PLATEAU_MEASUREMENTS = 8
PLATEAU_SHARE = 0.005
"""A run stands on a plateau where its last measurements of the held-out loss have not lowered the best one by this share."""


def best(state: State) -> float:
    """The lowest held-out loss so far; infinite where none was measured."""
    return min(_losses(state), default=math.inf)


def is_plateau(bests: Sequence[float]) -> bool:
    """`bests`: the best loss after each measurement, in the order of the log."""
    if len(bests) <= PLATEAU_MEASUREMENTS:
        return False
    before, now = bests[-1 - PLATEAU_MEASUREMENTS], bests[-1]
    return now > before - PLATEAU_SHARE * abs(before)


def _losses(state: State) -> list[float]:
    """Of the checkpoints; of a stream that measures none on the way, what its validator measured (other rows are no new best)."""
    found = []
    for stream in state.streams.values():
        measured = [saved.figures[FIGURE] for saved in stream.checkpoints if FIGURE in saved.figures]
        judged = stream.verdict.figures.get(FIGURE, math.nan) if stream.verdict else math.nan
        found += measured or [judged]
    return [loss for loss in found if math.isfinite(loss)]
