"""Which streams are the best so far, by the figure that the run promotes by; pure."""

from __future__ import annotations

import math

from swarm import figures
from swarm.settings import RunSettings
from swarm.state import State, Stream

SHOWN = 5


def ranked(state: State, metric: str, goal: str) -> list[tuple[str, float]]:
    """Streams that have the figure, the best first; while they train it is that of the newest checkpoint."""
    found = [(name, value) for name, stream in state.streams.items() if (value := _newest(stream, metric)) is not None]
    return sorted(found, key=lambda one: one[1], reverse=goal == "max")


def _newest(stream: Stream, metric: str) -> float | None:
    saved = stream.checkpoints[-1].figures if stream.checkpoints else {}
    value = {**saved, **stream.figures}.get(metric)
    return value if value is not None and math.isfinite(value) else None


def line(state: State, settings: RunSettings) -> str:
    """`eval_loss: 1 wide.t3 0.412, 2 wide.t2 0.43`; empty where fewer than two have the figure."""
    metric = settings.promotion.metric
    best = ranked(state, metric, settings.promotion.direction)
    if len(best) < 2:
        return ""
    places = [f"{number} {name} {figures.of(metric).text(value)}" for number, (name, value) in enumerate(best, 1)]
    more = f" and {len(best) - SHOWN} more" if len(best) > SHOWN else ""
    return f"{metric}: {', '.join(places[:SHOWN])}{more}"
