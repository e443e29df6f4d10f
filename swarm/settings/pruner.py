"""Of early exit by one of Optuna's pruners: which one, and its keywords, which are Optuna's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from swarm.keys import Positive, Settings

PrunerName = Literal["median", "percentile", "successive_halving", "hyperband", "patient", "threshold", "wilcoxon"]

_WHEN = frozenset({"n_warmup_steps", "interval_steps"})
_OF_ENDED = _WHEN | {"n_startup_trials", "n_min_trials"}
_OF_RUNGS = frozenset({"min_resource", "reduction_factor", "bootstrap_count"})
PATIENCE = frozenset({"patience", "min_delta"})
TAKES: Mapping[PrunerName, frozenset[str]] = {
    "median": _OF_ENDED,
    "percentile": _OF_ENDED | {"percentile"},
    "successive_halving": _OF_RUNGS | {"min_early_stopping_rate"},
    "hyperband": _OF_RUNGS | {"max_resource"},
    "patient": frozenset(),
    "threshold": _WHEN | {"lower", "upper"},
    "wilcoxon": frozenset({"p_threshold", "n_startup_steps"}),
}
"""The settings of each pruner, beside those of PATIENCE, which every one takes."""
NEEDS: Mapping[str, str] = {"percentile": "percentile", "patient": "patience"}
"""What a pruner cannot be without; threshold has one of its two ends."""


class Pruner(Settings):
    """Early exit by one of Optuna's pruners; settings that are not written are Optuna's defaults."""

    type: PrunerName
    """Which one.  Each compares the held-out losses of a stream with those of the others, but threshold and patient, which go by its own."""
    n_startup_trials: Annotated[int, Field(ge=0)] | None = None
    """median, percentile: nobody stops before so many streams were trained to their end (5)."""
    n_warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """median, percentile, threshold: nobody stops before this step (0)."""
    interval_steps: Positive | None = None
    """median, percentile, threshold: judged once in so many steps (1: at each measurement)."""
    n_min_trials: Positive | None = None
    """median, percentile: so many must have been measured at that step (1)."""
    percentile: Annotated[float, Field(ge=0, le=100)] | None = None
    """percentile: the best so many in a hundred go on."""
    min_resource: Positive | None = None
    """successive_halving, hyperband: the step of the first rung (a hundredth of the longest training; hyperband: 1)."""
    max_resource: Positive | None = None
    """hyperband: the last step (that of the first stream that was trained to its end)."""
    reduction_factor: Annotated[int, Field(ge=2)] | None = None
    """successive_halving, hyperband: one in so many goes on beyond a rung (4; hyperband: 3)."""
    min_early_stopping_rate: Annotated[int, Field(ge=0)] | None = None
    """successive_halving: rungs that are left out at the beginning (0)."""
    bootstrap_count: Annotated[int, Field(ge=0)] | None = None
    """successive_halving, hyperband: so many must have reached a rung before somebody goes on beyond it (0)."""
    lower: float | None = None
    """threshold: a held-out loss below it stops the stream."""
    upper: float | None = None
    """threshold: a held-out loss above it stops the stream."""
    p_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """wilcoxon: the p by which a stream is worse than the best one, step by step (0.1)."""
    n_startup_steps: Annotated[int, Field(ge=0)] | None = None
    """wilcoxon: so many measurements must be there (2)."""
    patience: Annotated[int, Field(ge=0)] | None = None
    """Of any pruner: who has had a lower loss within so many measurements goes on; patient judges by that alone."""
    min_delta: Annotated[float, Field(ge=0)] | None = None
    """With patience: a lower loss is one by more than this (0)."""

    def keywords(self) -> dict[str, Any]:
        """Of Optuna's class, as far as they were written."""
        return {name: value for name in sorted(TAKES[self.type]) if (value := getattr(self, name)) is not None}

    def unusable(self) -> tuple[str, str, str] | None:
        """What does not go together: the setting, why and the fix."""
        foreign = next((key for key in self._written() if key not in TAKES[self.type] | PATIENCE), None)
        if foreign:
            return foreign, f"is no setting of {self.type}", f"write it with {_owners(foreign)}, or leave it out"
        if (needed := NEEDS.get(self.type)) and getattr(self, needed) is None:
            return "type", f"{self.type} needs `{needed}`", f"write `{needed}:`"
        if self.type == "threshold" and self.lower is None and self.upper is None:
            return "type", "threshold needs `upper` or `lower`", "write one of them"
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            return "lower", f"{self.lower:g} is above upper, {self.upper:g}", "exchange them"
        if self.min_delta is not None and self.patience is None:
            return "min_delta", "is nothing without `patience`", "write `patience:`, or leave it out"
        if self.type == "hyperband" and self.bootstrap_count and self.max_resource is None:
            return "bootstrap_count", "hyperband needs `max_resource` for it", "write `max_resource:`, the last step"
        return None

    def _written(self) -> list[str]:
        return [name for name, value in self if name != "type" and value is not None]


def _owners(key: str) -> str:
    return " or ".join(f"`type: {name}`" for name, keys in TAKES.items() if key in keys)
