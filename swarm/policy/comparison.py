"""The comparison of a run's arms before its promotion: who is best, what cannot be told apart from it, and what is taken then; pure.

An arm is a stream, or its replicas over seeds together.  The bare base is always an arm: it is the cheapest, so what cannot be told
apart from it is not promoted where the base must be beaten, and of a tie an arm that can be is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from swarm import events as ev
from swarm import figures, units
from swarm.figures import BASE
from swarm.policy import chance
from swarm.policy.chance import Difference, Draws, Spread
from swarm.settings import Promotion, RunSettings
from swarm.standing import Stream

NAMED = 8
"""So many arms of a tie are named in a sentence; the entry's text has all of them."""
MOST_TIED = 60
"""And so many in the field `tied`: a fact of an entry has at most 8 KiB."""


@dataclass(frozen=True, slots=True)
class RowScores:
    """One figure of one stream, row by row."""

    adapter: Sequence[float]
    base: Sequence[float]
    weight: Sequence[float]


@dataclass(frozen=True, slots=True)
class Arm:
    name: str
    streams: Sequence[Stream]
    value: float
    """Mean of the figure over its seeds."""

    @property
    def cost(self) -> tuple[int, float]:
        """Trainable parameters, then seconds of training."""
        trained = [stream.trained for stream in self.streams if stream.trained]
        return max(one.trainable for one in trained), fmean(one.figures.get("seconds", math.inf) for one in trained)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that one promotion compares."""

    settings: RunSettings
    arms: Sequence[Arm]
    """The best first."""
    scores: Mapping[str, RowScores]
    """By stream."""
    spread: Spread | None
    random: Draws

    @property
    def promotion(self) -> Promotion:
        return self.settings.promotion

    def against(self, arm: Arm, other: Arm | None) -> Difference:
        """By how much an arm is better than another one, or than the bare base."""
        sign = -1.0 if self.promotion.direction == "min" else 1.0
        own = self._means(arm)
        theirs = self._means(other) if other else self.scores[arm.streams[0].name].base
        weights = self.scores[arm.streams[0].name].weight
        rows = [(sign * (a - b), weight) for a, b, weight in zip(own, theirs, weights, strict=True)]
        seeds = len(arm.streams), len(other.streams) if other else 0
        return chance.difference(rows, self.promotion.test_level, self.random, seeds, self.spread)

    def _means(self, arm: Arm) -> list[float]:
        columns = [self.scores[stream.name].adapter for stream in arm.streams]
        return [fmean(row) for row in zip(*columns, strict=True)]


def arms_of(streams: Sequence[Stream], settings: RunSettings) -> list[Arm]:
    """Streams that have the figure, replicas together, the best first."""
    promotion, grouped = settings.promotion, dict[str, list[Stream]]()
    for stream in streams:
        if math.isfinite(stream.figures.get(promotion.metric, math.nan)):
            grouped.setdefault(settings.streams[stream.name].replica_of or stream.name, []).append(stream)
    made = [
        Arm(name, members, fmean(stream.figures[promotion.metric] for stream in members))
        for name, members in grouped.items()
    ]
    return sorted(made, key=lambda arm: arm.value, reverse=promotion.direction == "max")


def compared(
    streams: Sequence[Stream], settings: RunSettings, scores: Mapping[str, RowScores], random: Draws, key: str
) -> ev.Compared:
    """Of streams that may win and were scored on the same rows; `key` names these scores."""
    arms = arms_of(streams, settings)
    given = settings.promotion.seed_spread
    values = [[stream.figures[settings.promotion.metric] for stream in arm.streams] for arm in arms]
    spread = chance.spread_of(values) or (Spread(given, None) if given is not None else None)
    return _outcome(Comparison(settings, arms, scores, spread, random), key)


def _outcome(comparison: Comparison, key: str) -> ev.Compared:
    best, *others = comparison.arms
    level = comparison.promotion.test_level
    differences = [comparison.against(best, other) for other in others]
    *apart, _ = _told_apart(differences, [comparison.against(best, None)], level)
    tied = [other for other, is_apart in zip(others, apart, strict=True) if not is_apart]
    candidates = _in_order(best, tied, comparison.promotion)
    from_base = [comparison.against(arm, None) for arm in candidates]
    beats = [
        is_apart and one.value > 0
        for one, is_apart in zip(from_base, _told_apart(differences, from_base, level)[len(others) :], strict=True)
    ]
    place = beats.index(True) if comparison.promotion.must_beat == "base" and any(beats) else 0
    chosen = candidates[place]
    lines = [
        *(_line(best, other.name, one) for other, one in zip(others, differences, strict=True)),
        _line(chosen, "base", from_base[place]),
        _about_seeds(comparison, len(others)),
    ]
    return ev.Compared(
        ref="run", metric=comparison.promotion.metric, best=best.name, arm=chosen.name,
        chosen=_best_seed(chosen, comparison).name, tied=",".join(other.name for other in tied[:MOST_TIED]) or None,
        beats_base=beats[place], level=level, scores=key, why=_why(comparison, candidates[: place + 1], tied, differences, apart),
        body="\n".join(f"- {line}" for line in lines if line),
    )  # fmt: skip


def _told_apart(differences: Sequence[Difference], from_base: Sequence[Difference], level: float) -> list[bool]:
    """The base is one of the arms: all comparisons of a promotion share its level."""
    return chance.told_apart([one.p for one in (*differences, *from_base)], level)


def _in_order(best: Arm, tied: Sequence[Arm], promotion: Promotion) -> list[Arm]:
    """Who may be taken of a tie, the first one rather than the next."""
    if promotion.tie_break == "best":
        return [best]
    return sorted((best, *tied), key=lambda arm: arm.cost)


def _best_seed(arm: Arm, comparison: Comparison) -> Stream:
    metric, goal = comparison.promotion.metric, comparison.promotion.direction
    return (min if goal == "min" else max)(arm.streams, key=lambda stream: stream.figures[metric])


# ---- in words --------------------------------------------------------------------------------------------------------


def _why(
    comparison: Comparison,
    candidates: Sequence[Arm],
    tied: Sequence[Arm],
    differences: Sequence[Difference],
    apart: Sequence[bool],
) -> str:
    """The last candidate is taken; those before it did not beat the base."""
    best, *others = comparison.arms
    *passed_over, chosen = candidates
    metric, order = comparison.promotion.metric, "lowest" if comparison.promotion.direction == "min" else "highest"
    base = best.streams[0].figures.get(BASE + metric)
    of_base = "" if base is None else f"base {base:.4g}"
    if not tied:
        parts = [f"{order} {metric} {best.value:.4g}"]
        if others:
            parts.append(
                f"next {others[0].name} {others[0].value:.4g}, {_interval(differences[0], comparison.promotion)}"
            )
        return "; ".join(filter(None, [*parts, of_base, *_cautions(comparison)]))
    names = ", ".join(f"{arm.name} {arm.value:.4g}" for arm in (best, *tied)[:NAMED])
    names += f" and {len(tied) + 1 - NAMED} more" if len(tied) >= NAMED else ""
    closest = next(one for one, is_apart in zip(differences, apart, strict=True) if not is_apart)
    how = "best" if comparison.promotion.tie_break == "best" else f"cheapest ({units.count(chosen.cost[0])} parameters)"
    parts = [
        f"{figures.TIE} by {metric}: {names} cannot be told apart",
        _interval(closest, comparison.promotion),
        f"{chosen.name} is the {how}" + (" that beats the base" if passed_over else ""),
        of_base,
        *_cautions(comparison),
    ]
    return "; ".join(filter(None, parts))


def _interval(one: Difference, promotion: Promotion) -> str:
    """A perplexity is compared as the loss that it is made of, which is said."""
    compared_as = figures.of(promotion.metric).compared_as
    of = f" of {compared_as}" if compared_as else ""
    of_few = f" on {one.rows} rows" if one.are_few else ""
    return (
        f"difference{of} {one.value:.3g}{of_few}, {100 * (1 - promotion.test_level):g}% interval {one.low:.3g} to {one.high:.3g}, "
        f"detectable from {one.detectable:.2g} on"
    )


def _line(arm: Arm, other: str, one: Difference) -> str:
    return f"{arm.name} - {other}: {one.value:.3g} ({one.low:.3g} to {one.high:.3g}), {one.detectable:.2g}, {one.p:.2g}"


def _cautions(comparison: Comparison) -> list[str]:
    """What the figures cannot tell."""
    settings = [comparison.settings.streams[stream.name] for arm in comparison.arms for stream in arm.streams]
    same_rows = any(one.chooses_steps and not (one.val_datasets or one.sealed_datasets) for one in settings)
    return [
        *([] if comparison.spread else ["the spread over seeds is not known"]),
        *(["steps were chosen and streams judged on the same rows"] if same_rows else []),
    ]


def _about_seeds(comparison: Comparison, others: int) -> str:
    match comparison.spread:
        case None:
            return ""  # the reason says so
        case Spread(value, None):
            factor = chance.multiple(comparison.promotion.test_level, others)
            return f"given spread over seeds {value:.3g}: a difference below {factor:.2g} times it counts as chance"
        case Spread(value, freedom):
            return f"spread over seeds {value:.3g}, measured with {freedom} degrees of freedom"
