"""Which stream wins and why: pure comparison of scores that were taken on the same held-out rows."""

from __future__ import annotations

from dataclasses import dataclass

from swarm import events as ev
from swarm.settings import Promotion
from swarm.state import State, Stream


@dataclass(frozen=True, slots=True)
class Choice:
    """The winner, or none; `why` is a sentence for people."""

    winner: str | None
    why: str


def figure(score: ev.Score, metric: str) -> float | None:
    return score.heldout if metric == "eval_loss" else score.exact


def base_figure(score: ev.Score, metric: str) -> float | None:
    return score.base_heldout if metric == "eval_loss" else score.base_exact


def _better(first: float, second: float, promotion: Promotion) -> bool:
    return first < second if goal(promotion) == "min" else first > second


def goal(promotion: Promotion) -> str:
    return promotion.goal or ("min" if promotion.metric == "eval_loss" else "max")


def choose(state: State, promotion: Promotion) -> Choice:
    """The best scored stream with a SUCCESS verdict that beats what it must beat."""
    scored = [
        (s, s.score)
        for s in state.streams.values()
        if s.score and s.adapter and s.verdict and s.verdict.result == "SUCCESS"
    ]
    if not scored:
        return Choice(None, "no stream has both a SUCCESS verdict and a score")
    rows = {score.rows_sha256 for _, score in scored}
    if len(rows) > 1:
        return Choice(
            None,
            "the streams were scored on different held-out rows; give them the same `test_datasets` to compare them",
        )
    field = [
        (stream, score, value) for stream, score in scored if (value := figure(score, promotion.metric)) is not None
    ]
    if not field:
        return Choice(None, f"no stream has the figure {promotion.metric}; set `eval_rows` above 0")
    field.sort(key=lambda item: item[2], reverse=goal(promotion) == "max")
    stream, score, value = field[0]
    base = base_figure(score, promotion.metric)
    if promotion.must_beat == "base" and base is not None and not _better(value, base, promotion):
        return Choice(
            None, f"the best, {stream.name} ({promotion.metric} {value:.4g}), does not beat the base ({base:.4g})"
        )
    return Choice(stream.name, _sentence(stream, value, base, [(s, v) for s, _, v in field[1:]], promotion))


def _sentence(
    stream: Stream, value: float, base: float | None, others: list[tuple[Stream, float]], promotion: Promotion
) -> str:
    order = "lowest" if goal(promotion) == "min" else "highest"
    parts = [f"{order} {promotion.metric} {value:.4g}"]
    if others:
        second, second_value = others[0]
        parts.append(f"next {second.name} {second_value:.4g}")
    if base is not None:
        parts.append(f"base {base:.4g}")
    return ", ".join(parts)
