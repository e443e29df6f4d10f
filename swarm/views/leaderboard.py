"""Which streams are the best so far, by the figure that the run promotes by; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from swarm import figures, units
from swarm.figures import Goal
from swarm.policy.spending import training_seconds, usd
from swarm.settings import Promotion, RunSettings
from swarm.state import State
from swarm.views.snapshot import Leaderboard, Place, StreamRow
from swarm.views.streamrows import as_measured

TRIAL = re.compile(r".+\.t\d+(\.s\d+)?")
"""The name of a trial of a search, or of a replica of it."""
CONCLUDED = {"keep": "kept", "discard": "discarded", "replica": "replica"}
"""States of proposals that were judged."""


def ranked(
    measured: Mapping[str, Mapping[str, float]], promotion: Promotion, unlike: Collection[str] = ()
) -> tuple[str, Goal, list[tuple[str, float]]]:
    """The figure, which end of it is better, and the streams that have it, the best first.

    `measured`: the newest figures by stream.  Before two have the promotion's figure it is the held-out loss.
    `unlike`: streams whose figures are of other rows than the rest's, which come after the rest.
    """
    metric, goal = promotion.metric, promotion.direction
    if len(found := _finite(measured, metric)) < 2:
        metric, goal = "eval_loss", "min"
        found = _finite(measured, metric)
    sign = -1 if goal == "max" else 1
    return metric, goal, sorted(found, key=lambda one: (one[0] in unlike, sign * one[1]))


def of_val_rows(state: State, settings: RunSettings) -> set[str]:
    """Streams whose figures are of `val_datasets`, where others have been judged on the held-out rows."""
    judged = {name for name, stream in state.streams.items() if stream.verdict or stream.score}
    named = {name for name, stream in settings.streams.items() if stream.val_datasets}
    return named - judged if judged else set()


def _finite(measured: Mapping[str, Mapping[str, float]], metric: str) -> list[tuple[str, float]]:
    return [(name, own[metric]) for name, own in measured.items() if math.isfinite(own.get(metric, math.nan))]


def competes(state: State) -> bool:
    """Whether streams of the run are trials that are measured against each other: a search, early exit or a research."""
    names_trials = any(map(TRIAL.fullmatch, state.streams))
    return bool(state.added) or names_trials or any(stream.gave_way for stream in state.streams.values())


def leaderboard(state: State, settings: RunSettings, rows: Sequence[StreamRow], now: float) -> Leaderboard:
    """Without places where fewer than two streams have the figure."""
    measured = {row.name: as_measured(state.streams[row.name], _newest(row)) for row in rows}
    unlike = of_val_rows(state, settings)
    metric, goal, best = ranked({name: own for name, (_, own) in measured.items()}, settings.promotion, unlike)
    if len(best) < 2:
        return Leaderboard()
    by_name, places = {row.name: row for row in rows}, []
    for rank, (name, value) in enumerate(best, start=1):
        row = by_name[name]
        seconds = training_seconds(state, name, now)
        cost = float(f"{usd(seconds / 60, settings):.3g}") if seconds is not None and settings.prices else None
        step = measured[name][0] or 0
        standing = _standing(state, row, metric) + (", val rows" if name in unlike else "")
        places.append(Place(rank, name, step, row.steps, value, seconds, cost, standing))
    return Leaderboard(metric, goal, tuple(places), competes(state))


def _newest(row: StreamRow) -> dict[str, float]:
    return {**row.figures, **({"step": float(row.step)} if row.step else {})}


def _standing(state: State, row: StreamRow, metric: str) -> str:
    """`train`, `stopped at 20`, `kept`, `promoted` and so on."""
    proposal = state.proposals.get(row.name)
    if row.state == "stopped":
        measured = [saved.step for saved in state.streams[row.name].checkpoints if metric in saved.figures]
        return f"stopped at {measured[-1] if measured else row.step}"
    if row.state == "done" and proposal and proposal.conclusion:
        return CONCLUDED[proposal.conclusion.result]
    return row.state


HEADINGS = ("", "stream", "step/of", "figure", "cost", "state")


def words(one: Place, metric: str) -> tuple[str, ...]:
    """One place under `HEADINGS`."""
    figure, steps = figures.of(metric).text(one.value), f"{one.step}/{one.steps or '?'}"
    return str(one.rank), one.stream, steps, figure, cost(one), one.state


def cost(one: Place) -> str:
    """`48s`, or with a price `48s $0.03`."""
    return units.duration(one.seconds) + (f" ${one.usd:.2g}" if one.usd is not None else "")


def title(board: Leaderboard) -> str:
    """`held-out, lowest first`."""
    return f"{figures.of(board.metric).label}, {'highest' if board.goal == 'max' else 'lowest'} first"
