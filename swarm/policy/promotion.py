"""Which stream wins and why, and whose approval its promotion waits for; pure, from scores on the same held-out rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from swarm import events as ev
from swarm import figures
from swarm.event import SHORT
from swarm.settings import Promotion, RunSettings
from swarm.state import Refusal, State, Stream


@dataclass(frozen=True, slots=True)
class Choice:
    """The winner, or none; `why` is a sentence for people."""

    winner: str | None
    why: str


def _better(first: float, second: float, promotion: Promotion) -> bool:
    return first < second if promotion.direction == "min" else first > second


def choose(state: State, promotion: Promotion) -> Choice:
    """The best scored stream that beats what it must beat; one with a WARNING only where people have their say.

    What was compared row by row is decided by that comparison; scores without rows, of agents say, by their figures alone.
    """
    scored = _scored(state, promotion)
    if not scored:
        return Choice(None, "no stream has both a SUCCESS verdict and a score" + _hint(state))
    rows = {score.rows_sha256[:SHORT] for _, score in scored}
    if len(rows) > 1:
        return Choice(
            None,
            "the streams were scored on different held-out rows; give them the same `test_datasets` to compare them",
        )
    compared = [
        (stream, value)
        for stream, _ in scored
        if (value := stream.figures.get(promotion.metric)) is not None and math.isfinite(value)
    ]
    if not compared:
        hint = "; set `eval_rows` above 0" if figures.of(promotion.metric).of == "answers" else ""
        return Choice(None, f"no stream has the figure {promotion.metric}{hint}")
    if (found := state.compared) and found.scores[:SHORT] == _key([stream for stream, _ in compared], promotion):
        return _by_comparison(found, promotion)
    compared.sort(key=lambda item: item[1], reverse=promotion.direction == "max")
    best = compared[0][0]
    if why := _does_not_beat(best, promotion):
        return Choice(None, f"the best, {best.name}: {why}")
    return Choice(best.name, _sentence(compared, promotion))


def _scored(state: State, promotion: Promotion) -> list[tuple[Stream, ev.Score]]:
    return [(s, s.score) for s in state.streams.values() if s.score and _may_win(state, s, promotion)]


def _by_comparison(found: ev.Compared, promotion: Promotion) -> Choice:
    if promotion.must_beat == "base" and not found.beats_base:
        return Choice(None, f"{found.arm} is not better than the bare base by more than chance: {found.why}")
    return Choice(found.chosen, found.why)


def to_compare(state: State, promotion: Promotion) -> tuple[list[Stream], str]:
    """The streams that are to be compared row by row before the promotion, and the name of their scores; none: nothing is to do."""
    scored = _scored(state, promotion)
    streams = [s for s, _ in scored if math.isfinite(s.figures.get(promotion.metric, math.nan))]
    key = _key(streams, promotion)
    same_rows = len({score.rows_sha256[:SHORT] for _, score in scored}) == 1
    if not streams or not same_rows or not key or (state.compared and state.compared.scores[:SHORT] == key):
        return [], ""
    return streams, key


def _key(streams: Sequence[Stream], promotion: Promotion) -> str:
    """Names the scores row by row of these streams; empty where one has none."""
    scores = [(stream.name, stream.score.scores_sha256) for stream in streams if stream.score]
    if any(sha256 is None for _, sha256 in scores):
        return ""
    named = [promotion.metric, promotion.direction, promotion.tie_break, promotion.test_level, promotion.seed_spread]
    return hashlib.sha256(repr([named, sorted(scores)]).encode()).hexdigest()[:SHORT]


def _may_win(state: State, stream: Stream, promotion: Promotion) -> bool:
    """Whether a stream takes part: with SUCCESS always; with a WARNING if the config asks for approvals, or a person gave one unasked."""
    if stream.adapter is None or stream.verdict is None or stream.verdict.result == "FAIL" or stream.failed:
        return False
    return stream.verdict.result == "SUCCESS" or _needs_approval(promotion) or _a_person_approved(state, stream)


def _hint(state: State) -> str:
    warned = [s.name for s in state.streams.values() if s.adapter and s.verdict and s.verdict.result == "WARNING"]
    return f"; `swarm promote {warned[0]} --force` promotes one with a WARNING, with a reason" if warned else ""


def _needs_approval(promotion: Promotion) -> bool:
    return bool(promotion.approvals or promotion.approvers)


def _a_person_approved(state: State, stream: Stream) -> bool:
    """Whether the run's owner or an admin approved the adapter that is published now."""
    return any(
        opinion.agrees and opinion.person and scope == stream.name and opinion.seq > stream.adapter_seq
        for (scope, _), opinion in state.opinions.items()
    )


# ---- sealed rows -----------------------------------------------------------------------------------------------------


def unexamined(settings: RunSettings, state: State, name: str) -> str:
    """Why the sealed rows do not let these weights be promoted; empty: they do, or there are none."""
    if not settings.streams[name].sealed_datasets:
        return ""
    found = state.streams[name].examined
    if found is None:
        return "its weights were not examined on the sealed rows"
    return "" if found.result == "SUCCESS" else f"it failed on the sealed rows: {found.why}"


# ---- approvals ---------------------------------------------------------------------------------------------------------


def waits_for(state: State, promotion: Promotion, stream: str) -> str:
    """What the promotion of this stream waits for, as a message for people; empty: nothing."""
    objections = [f"{by} objects: {why}" for by, why in state.objections(stream)]
    if objections:
        return f"{', '.join(objections)} (their `swarm approve {stream}` takes it back)"
    if missing := _missing_approvals(state, promotion, stream):
        return f"waits for {missing}: `swarm approve {stream}`"
    verdict = state.streams[stream].verdict
    if verdict and verdict.result == "WARNING" and not _a_person_approved(state, state.streams[stream]):
        reason = verdict.why or "no reason given"
        return f"the verdict is WARNING ({reason}): `swarm approve {stream}` by the run's owner or an admin is needed"
    return ""


def _missing_approvals(state: State, promotion: Promotion, stream: str) -> str:
    given = set(state.approvers(stream))
    if promotion.approvers:
        missing = [name for name in promotion.approvers if name not in given]
        still = (promotion.approvals or len(promotion.approvers)) - (len(promotion.approvers) - len(missing))
        names = ", ".join(missing)
        return "" if still <= 0 else names if still >= len(missing) else f"{still} of {names}"
    short = promotion.approvals - len(given)
    return "" if short <= 0 else f"{short} more approval{'s' * (short > 1)}"


def waiting(state: State, promotion: Promotion) -> str:
    """Whom a run waits for whose streams have all finished; empty: it is not waiting."""
    held = any(task.role for task in state.held())
    if state.promoted or state.end or state.stopped or held or not state.streams or state.open_streams():
        return ""
    if to_compare(state, promotion)[0]:
        return ""  # which stream wins is not known before they are compared
    winner = choose(state, promotion).winner
    why = waits_for(state, promotion, winner) if winner else ""
    return f"{winner}: {why}" if why else ""


def admit_promotion(state: State, promotion: Promotion, event: ev.Promote) -> None:
    """Raises Refusal unless a person may promote this stream now.  `force`, which needs a reason, overrides all but fencing tokens."""
    if event.force:
        if not event.why.strip():
            raise Refusal(f"{event.ref}: a forced promotion needs a reason")
    elif why := waits_for(state, promotion, event.ref) or _does_not_beat(state.streams[event.ref], promotion):
        raise Refusal(f"{event.ref}: {why}; or `swarm promote {event.ref} --force` with a reason")


def _does_not_beat(stream: Stream, promotion: Promotion) -> str:
    """Why the stream does not count as better than what `must_beat` names; empty: it does."""
    if promotion.must_beat == "nothing":
        return ""
    value, base = _figure_and_base(stream, promotion)
    if value is None or base is None:
        return f"no {promotion.metric} was measured, so it cannot be compared with the base"
    if _better(value, base, promotion):
        return ""
    return f"{promotion.metric} {value:.4g} does not beat the base ({base:.4g})"


def _figure_and_base(stream: Stream, promotion: Promotion) -> tuple[float | None, float | None]:
    """The metric of the adapter and of the base; None until the stream has a score, since earlier figures are of other rows."""
    if stream.score is None:
        return None, None
    return stream.figures.get(promotion.metric), stream.figures.get(figures.BASE + promotion.metric)


def _sentence(compared: list[tuple[Stream, float]], promotion: Promotion) -> str:
    (best, value), *others = compared
    order = "lowest" if promotion.direction == "min" else "highest"
    parts = [f"{order} {promotion.metric} {value:.4g}"]
    if others:
        second, second_value = others[0]
        parts.append(f"next {second.name} {second_value:.4g}")
    if (base := _figure_and_base(best, promotion)[1]) is not None:
        parts.append(f"base {base:.4g}")
    return ", ".join(parts) + "; chance was not judged: no scores row by row"
