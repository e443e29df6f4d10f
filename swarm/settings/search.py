"""Of a search: trials of a stream, and the early exit of those that are not among the best."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from swarm.keys import Positive, Settings

MOST_TRIALS = 256
"""Streams that one stream may become: a typing error must not fill the memory."""


class Range(Settings):
    """Numbers between two ends, both included; whole ones where both ends are."""

    low: int | float
    """The smallest."""
    high: int | float
    """The largest."""
    log: bool = False
    """Evenly in the logarithm: as many between 1e-4 and 1e-3 as between 1e-3 and 1e-2."""

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Sampler = Literal["random", "grid", "tpe", "gp", "cmaes", "qmc", "nsgaii", "nsgaiii"]
DRAWN = frozenset({"random", "grid"})
"""Samplers whose trials are known before the run; the others are Optuna's, and learn from the trials."""
TRIALS = 8
"""Of a search that names no number; a grid has all its combinations."""


Space = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)] | Range], Field(min_length=1)]
"""By setting: a list of values, or a range."""


class Search(Settings):
    """Trials of a stream, whose settings are drawn from a space."""

    space: Space
    """By setting: a list of values, or `{low: 1e-4, high: 1e-2, log: true}`."""
    sampler: Sampler = "random"
    """random: drawn with `seed`, no trial twice; grid: every combination of lists; the others are Optuna's and learn from the trials."""
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] | None = None
    """So many, of which the space must hold as many; unset: at most 8, and all of a grid.  Of Optuna's samplers the stream itself is the first one, the one to beat."""
    at_once: Positive = 4
    """Trials of one of Optuna's samplers that are trained at the same time: of those it learns nothing yet."""
    seed: int = 0
    """Of the draws."""

    @property
    def learns(self) -> bool:
        """Whether a trial depends on the ones before: they join the running run one by one."""
        return self.sampler not in DRAWN

    def unusable(self) -> tuple[str, str, str] | None:
        """What in the space cannot be drawn from: the setting, why and the fix."""
        for key, values in self.space.items():
            if not isinstance(values, Range):
                continue
            if self.sampler == "grid":
                return key, "a grid has lists of values", "write a list, or `sampler: random`"
            if not values.low < values.high or (values.log and values.low <= 0):
                above = " above 0" if values.log else ""
                return key, f"low {values.low:g} is not a number{above} below high {values.high:g}", "correct them"
        wanted = self.trials or (TRIALS if self.learns else 0)
        if wanted > (most := self._combinations()):
            return next(iter(self.space)), f"the space holds {most:g} trials", "lower `trials`, or widen the space"
        size = math.prod(len(values) for values in self.space.values() if isinstance(values, list))
        if self.sampler == "grid" and self.trials is None and size > MOST_TRIALS:
            return (
                next(iter(self.space)),
                f"the grid has {size} trials, more than {MOST_TRIALS}",
                "set `trials`, or shorten the lists",
            )
        return None

    def _combinations(self) -> float:
        return math.prod(
            len(set(map(repr, v))) if isinstance(v, list) else v.high - v.low + 1 if v.is_whole else math.inf
            for v in self.space.values()
        )


class Budget(Settings):
    """What a run may use at most; no trial begins that it does not hold."""

    steps: Positive | None = None
    """Optimizer steps of all streams together."""
    tokens: Positive | None = None
    """Tokens of the rows of all streams together, each pass counted."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Since the run began."""
    usd: Annotated[float, Field(gt=0)] | None = None
    """These minutes at the highest of the `prices`."""


class Halving(Settings):
    """Early exit of the streams that are not among the best."""

    first_step: Positive
    """The first rung: a checkpoint whose held-out loss is measured, so a multiple of `save_steps` and of `eval_steps`."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on beyond a rung, and each rung is so many times the steps of the one before."""
