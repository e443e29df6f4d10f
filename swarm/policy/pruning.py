"""Early exit by one of Optuna's pruners: what it is asked, and who stops by its answer; pure.

The pruner has no memory of its own: for each answer it is given every measurement of the run anew, in the order of the log, and
says at which one it would have stopped whom.  What it says of a measurement depends on those before alone, so that a run that is
resumed comes to the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from swarm import events as ev
from swarm.policy.commands import AskPruner
from swarm.policy.halving import FIGURE, may_stop
from swarm.settings import RunSettings
from swarm.state import State


def questions(state: State, settings: RunSettings) -> list[AskPruner]:
    """One while somebody may be stopped who was measured; who carries it out knows whether it was answered."""
    if settings.pruner is None or state.stopped:
        return []
    asked = any(may_stop(state, one.stream) and FIGURE in one.figures for one in state.course)
    return [AskPruner(len(state.course))] if asked else []


def request(state: State, settings: RunSettings) -> dict[str, Any]:
    """What the pruner is asked: its settings, and what the streams came to: `loss` at a step, None where it was not measured."""
    assert settings.pruner
    course = [
        {"trial": one.stream, "step": one.step, "loss": one.figures.get(FIGURE), "ended": isinstance(one, ev.Trained)}
        for one in state.course
    ]
    return {"pruner": settings.pruner.model_dump(mode="json"), "course": course}


def stops(state: State, settings: RunSettings, pruned: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """The streams that are to stop, each with the reason.  `pruned`: at which entry of the course the pruner stopped whom."""
    assert settings.pruner
    for name, number in pruned.items():
        if may_stop(state, name):
            at = state.course[number]
            best = min(_losses_at(state, at.step, number), default=math.inf)
            loss = f"held-out loss {at.figures[FIGURE]:.4g}; the lowest there so far is {best:.4g}"
            yield name, f"pruner {settings.pruner.type} at step {at.step}: {loss}"


def _losses_at(state: State, step: int, upto: int) -> list[float]:
    """Of this step, in the course up to and with that entry."""
    known = state.course[: upto + 1]
    losses = [one.figures[FIGURE] for one in known if one.step == step and FIGURE in one.figures]
    return [loss for loss in losses if math.isfinite(loss)]
