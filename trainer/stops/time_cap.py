"""A cap on wall-clock time, over all attempts at a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from swarm.keys import Settings
from swarm.kinds import Stateless, Stop


class TimeCapSettings(Settings):
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock minutes, over all attempts; pauses do not count."""
    max_minutes_from: Literal["training", "start"] = "training"
    """Where they begin: with the first step, or when the worker takes the stream, so that loading the base counts."""


@dataclass
class Deadline(Stateless):
    seconds: float
    figure: str

    def __call__(self, step: int, figures: Mapping[str, float]) -> str | None:
        return "max_minutes" if figures[self.figure] >= self.seconds else None


class TimeCap(Stop[TimeCapSettings]):
    name = "time cap"
    summary = "wall-clock time"
    settings = TimeCapSettings

    def armed(self, settings: TimeCapSettings) -> bool:
        return settings.max_minutes is not None

    def seconds_left(self, settings: TimeCapSettings, figures: Mapping[str, float]) -> float | None:
        if settings.max_minutes is None or "seconds" not in figures:
            return None
        return max(0.0, settings.max_minutes * 60 - figures["seconds"])

    def begin(self, settings: TimeCapSettings) -> Deadline:
        assert settings.max_minutes is not None
        figure = "seconds" if settings.max_minutes_from == "training" else "seconds_from_start"
        return Deadline(settings.max_minutes * 60, figure)


KINDS = (TimeCap(),)
