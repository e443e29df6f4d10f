"""What a comparison of a proposal with the best stream so far says; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from swarm import events as ev
from swarm import figures
from swarm.policy import chance
from swarm.policy.chance import Difference, Draws, Spread
from swarm.policy.commands import JudgeProposal
from swarm.policy.comparison import RowScores
from swarm.settings import RunSettings
from swarm.state import State


def concluded(
    state: State, settings: RunSettings, wanted: JudgeProposal, rows: Mapping[str, RowScores], draws: Draws
) -> ev.Conclude:
    """Kept is what is better, and not by chance, at the level of the promotion divided by the number of proposals."""
    assert settings.research
    level = settings.promotion.test_level / settings.research.proposals
    found = _difference(state, settings, wanted, rows, draws, level)
    is_better = found.value > 0 and found.p < level
    result: Literal["keep", "discard", "replica"] = (
        "replica" if wanted.is_replica else "keep" if is_better else "discard"
    )
    return ev.Conclude(
        ref=wanted.name, result=result, against=wanted.against, better=_short(found.value), low=_short(found.low),
        high=_short(found.high), p=_short(found.p), why=_why(settings, wanted, found, level, result),
    )  # fmt: skip


def _difference(
    state: State, settings: RunSettings, wanted: JudgeProposal, rows: Mapping[str, RowScores], draws: Draws, level: float
) -> Difference:  # fmt: skip
    own, best = rows[wanted.name], rows[wanted.against]
    sign = -1.0 if settings.promotion.direction == "min" else 1.0
    pairs = [(sign * (a - b), weight) for a, b, weight in zip(own.adapter, best.adapter, own.weight, strict=True)]
    return chance.difference(pairs, level, draws, spread=_spread(state, settings))


def _spread(state: State, settings: RunSettings) -> Spread | None:
    """Measured by the replicas so far; else what the config states."""
    arms: dict[str, list[str]] = {}
    for name, one in state.proposals.items():
        if one.conclusion and one.conclusion.result == "replica" and one.conclusion.against:
            arms.setdefault(one.conclusion.against, []).append(name)
    metric, given = settings.promotion.metric, settings.promotion.seed_spread
    values = [[state.streams[name].figures[metric] for name in (arm, *seeds)] for arm, seeds in arms.items()]
    return chance.spread_of(values) or (Spread(given, None) if given is not None else None)


def _why(settings: RunSettings, wanted: JudgeProposal, found: Difference, level: float, result: str) -> str:
    compared_as = figures.of(settings.promotion.metric).compared_as or settings.promotion.metric
    of = f"{compared_as} {abs(found.value):.3g} {'better' if found.value > 0 else 'worse'} than {wanted.against}"
    interval = f"{100 * (1 - level):.4g}% interval {found.low:.3g} to {found.high:.3g}, p {found.p:.2g}"
    cause = {
        "keep": "not by chance",
        "discard": "by chance or worse" if found.value > 0 else "no better",
        "replica": "another seed alone, which is no progress",
    }[result]
    return f"{of} ({interval}): {cause}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
