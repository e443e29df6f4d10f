"""The feedback loop: low ratings of what is promoted -> a stream is trained anew -> a canary -> promoted or discarded; pure.

The run goes on for it after its promotion.  One stream at a time is trained anew; each is concluded before the next ratings count.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from swarm import events as ev
from swarm.policy import chance
from swarm.policy.chance import Draws
from swarm.policy.commands import (
    BeginCanary,
    BeginRetraining,
    Command,
    DiscardProposal,
    JoinRetrained,
    JudgeCanary,
    PromoteWinner,
)
from swarm.policy.promotion import Choice, waits_for
from swarm.policy.spending import no_room
from swarm.settings import RunSettings
from swarm.settings.feedback import Feedback
from swarm.standing import Rated, Retrained, Stream
from swarm.state import State

HOUR = 3600.0


def results(state: State, settings: RunSettings, now: float) -> list[Command]:
    """What is to be recorded now, one at a time."""
    if settings.feedback is None or state.stopped or state.promoted is None:
        return []
    newest = _newest(state)
    if newest and newest.conclusion is None:
        return list(_of_open(state, settings.feedback, newest))[:1]
    if kept := _to_promote(state):
        waits = waits_for(state, settings.promotion, kept.event.ref)
        return [] if waits or not kept.conclusion else [PromoteWinner(Choice(kept.event.ref, kept.conclusion.why))]
    return _begun(state, settings, settings.feedback, now)


def joins(state: State) -> list[JoinRetrained]:
    """The stream that is to join now."""
    newest = _newest(state)
    waits = newest and not newest.conclusion and newest.event.ref not in state.streams and not state.stopped
    return [JoinRetrained(newest.event.ref)] if newest and waits else []


def is_open(state: State, settings: RunSettings, now: float) -> bool:
    """Whether the run is to go on for ratings that may still come."""
    if settings.feedback is None or state.stopped or state.promoted is None:
        return False
    trained = max((stream.turn_since for stream in state.streams.values()), default=0.0)
    return now - max(state.rated, trained) < settings.feedback.idle_hours * HOUR


def waits(state: State, settings: RunSettings) -> str:
    """Whom the promotion of a kept stream waits for; empty: nobody."""
    kept = _to_promote(state) if settings.feedback and not state.end and not state.stopped else None
    why = waits_for(state, settings.promotion, kept.event.ref) if kept else ""
    return f"{kept.event.ref}: {why}" if kept and why else ""


def standing(state: State, settings: RunSettings) -> str:
    """How many ratings there are of what is promoted, or of it and its canary, and how many are needed; empty: none are waited for."""
    feedback, promoted, newest = settings.feedback, state.promoted, _newest(state)
    if feedback is None or promoted is None or state.end:
        return ""
    if newest is None or newest.conclusion:
        rated = _values(_counted(state, promoted.ref))[-feedback.window :]
        mean = f" with the mean {_short(fmean(rated)):g}" if rated else ""
        return f"{promoted.ref} has {len(rated)} new ratings{mean}; of {feedback.least} at least it is to be {feedback.below:g}"
    if newest.canary is None:
        return f"{newest.event.ref} is trained with the answers that were rated"
    counts = (f"{name} has {len(_since(state, name, newest.canary_seq))}" for name in (newest.event.ref, promoted.ref))
    share = f"{newest.event.ref} gets {newest.canary.share:.0%} of the requests"
    return f"{share}; of {feedback.canary_ratings} ratings each {', '.join(counts)}"


def rows_of(state: State, feedback: Feedback) -> list[str]:
    """The answers, by id, that a stream is trained with: those that were rated well, and those for which there is a better one."""
    return [answer for answer, one in state.ratings.items() if one.has_better or one.rating >= feedback.below]


def concluded(state: State, settings: RunSettings, name: str, draws: Draws) -> ev.Conclude:
    """Kept is a canary whose ratings are better than those of what is promoted meanwhile, and not by chance."""
    one, promoted = state.retrained[name], state.promoted
    assert promoted
    own, others = (_since(state, stream, one.canary_seq) for stream in (name, promoted.ref))
    level = settings.promotion.test_level
    found = chance.difference(chance.unpaired(_values(own), _values(others)), level, draws)
    is_better = found.value > 0 and found.p < level
    cause = "not by chance" if is_better else "by chance or no better"
    better = f"rated {abs(found.value):.3g} {'better' if found.value > 0 else 'worse'} than {promoted.ref}"
    interval = f"{100 * (1 - level):.4g}% interval {found.low:.3g} to {found.high:.3g}, p {found.p:.2g}"
    return ev.Conclude(
        ref=name, result="keep" if is_better else "discard", against=promoted.ref, better=_short(found.value),
        low=_short(found.low), high=_short(found.high), p=_short(found.p),
        why=f"{better} ({len(own)} against {len(others)} ratings, {interval}): {cause}",
    )  # fmt: skip


def _newest(state: State) -> Retrained | None:
    return next(reversed(state.retrained.values()), None)


def _to_promote(state: State) -> Retrained | None:
    """The stream that was kept and is not promoted yet, unless something else was promoted since."""
    newest = _newest(state)
    if newest is None or newest.conclusion is None or newest.conclusion.result != "keep":
        return None
    is_due = newest.concluded_seq > state.promoted_seq and not state.streams[newest.event.ref].failed
    return newest if is_due else None


def _of_open(state: State, feedback: Feedback, one: Retrained) -> Iterator[Command]:
    """What follows for a stream that is trained anew or tried as a canary."""
    name = one.event.ref
    if (stream := state.streams.get(name)) is None:
        return
    assert state.promoted
    if why := _hopeless(state, stream):
        yield DiscardProposal(name, why)
    elif one.canary is None:
        if state.next_role(stream) is None:
            yield BeginCanary(name, feedback.canary_share)
    elif state.promoted.ref == name:
        yield DiscardProposal(name, "it was promoted meanwhile, so that there is nothing to compare it with")
    elif all(len(_since(state, of, one.canary_seq)) >= feedback.canary_ratings for of in (name, state.promoted.ref)):
        yield JudgeCanary(name)


def _hopeless(state: State, stream: Stream) -> str:
    """Why it is not tried, or not any longer."""
    if stream.over:
        return stream.failed or "it was stopped before its end"
    if objections := state.objections(stream.name):
        return "{} objects: {}".format(*objections[0])
    if state.next_role(stream) is None and (stream.adapter is None or not stream.verdict):
        return "it has no validated adapter"
    if state.next_role(stream) is None and stream.verdict and stream.verdict.result != "SUCCESS":
        return f"the verdict is {stream.verdict.result}: {stream.verdict.why or 'no reason given'}"
    return ""


def _begun(state: State, settings: RunSettings, feedback: Feedback, now: float) -> list[Command]:
    """Where the newest ratings of what is promoted are low, and there are answers from which to learn."""
    assert state.promoted
    like = state.promoted.ref
    rated = _values(_counted(state, like))[-feedback.window :]
    if len(rated) < feedback.least or fmean(rated) >= feedback.below or not rows_of(state, feedback):
        return []
    if like not in settings.streams or no_room(state, settings, now, settings.streams[like]):
        return []
    return [BeginRetraining(_new_name(state), like, _short(fmean(rated)), len(rated))]


def _new_name(state: State) -> str:
    taken = {*state.streams, *state.retrained, *(ref.partition("/")[0] for ref in state.tasks)}
    return next(name for number in range(1, len(taken) + 2) if (name := f"retrain-{number}") not in taken)


def _counted(state: State, promoted: str) -> list[Rated]:
    """Ratings of what is promoted since something was promoted, kept or discarded."""
    newest = _newest(state)
    return _since(state, promoted, max(state.promoted_seq, newest.concluded_seq if newest else 0))


def _since(state: State, stream: str, seq: int) -> list[Rated]:
    return [one for one in state.ratings.values() if one.stream == stream and one.seq > seq]


def _values(rated: list[Rated]) -> list[float]:
    return [one.rating for one in rated]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
