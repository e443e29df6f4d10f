"""The research loop: what agents propose is admitted phase by phase within the budget, trained, and kept or discarded; pure.

A phase is a task `research/PHASE`: whoever holds it leads the phase and ends it with `done`; a leader that dies loses its lease, and
another one claims the task.  Every agent may propose in the phase that is open; the next one opens when all its proposals are concluded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from swarm.event import SHORT, Event
from swarm.events import Approve, Object
from swarm.policy.commands import DiscardProposal, JoinProposal, JudgeProposal, OpenTask, StopStream
from swarm.policy.spending import no_room, trains
from swarm.settings import RunSettings, StreamSettings
from swarm.settings.research import Research, allows
from swarm.standing import Proposal
from swarm.state import Refusal, State

TASKS = "research"
UNCOMPARED = frozenset({"search", "replica_of"})
"""Settings by which two trainings do not differ."""


Result = OpenTask | JudgeProposal | DiscardProposal


def best_of(state: State, research: Research) -> str:
    """The stream that a proposal has to beat."""
    return state.kept or research.start


def phase_of(state: State, research: Research) -> str | None:
    """The first phase that is not done; None: all are."""
    tasks = {name: state.tasks.get(f"{TASKS}/{name}") for name in research.phases}
    return next((name for name, task in tasks.items() if task is None or not task.done), None)


def waiting(state: State) -> list[Proposal]:
    """Those that have not joined yet, the oldest first."""
    return [one for one in _open(state) if one.event.ref not in state.streams]


def proposals_waiting(state: State, settings: RunSettings) -> str:
    """Which proposals wait for an approval, with the command; empty: none does."""
    research = settings.research
    if research is None or state.end:
        return ""
    names = [
        one.event.ref
        for one in waiting(state)
        if not state.objections_to(one.event.ref) and _approvals(state, one) < research.approvals
    ]
    if not names:
        return ""
    many = f"proposals {', '.join(names)} wait" if len(names) > 1 else f"proposal {names[0]} waits"
    return f"{many} for an approval; `swarm ledger`, then `swarm approve {names[0]}` or `swarm object {names[0]}`"


def remark(state: State, event: Event) -> str:
    """What an opinion on a proposal that was trained does not change any more; empty: nothing is to be said."""
    one = state.proposals.get(event.ref) if isinstance(event, Approve | Object) and not event.of else None
    if one is None or one.conclusion is None:
        return ""
    return f"the proposal {event.ref} is concluded ({one.conclusion.result}): this is about its promotion alone"


def is_open(state: State, settings: RunSettings, now: float) -> bool:
    """Whether the run is to go on for proposals that may still come or are not concluded."""
    research = settings.research
    if research is None or state.stopped:
        return False
    return bool(_open(state)) or _takes_more(state, settings, research, now)


def results(state: State, settings: RunSettings, now: float) -> list[Result]:
    """What is to be recorded now: a phase that opens, and what becomes of proposals."""
    research = settings.research
    if research is None or state.stopped or research.start not in state.streams:
        return []
    found: list[Result] = [*_conclusions(state, settings, research), *_lost(state, settings, research, now)]
    return found[:1] or _opening(
        state, settings, research, now
    )  # one at a time: what is kept is what the next one has to beat


def stalls(state: State, settings: RunSettings, still_seconds: Mapping[str, float]) -> list[StopStream]:
    """The trials to be ended, since no step of theirs ends any more: others get their place.  `still_seconds`: by stream."""
    if settings.research is None:
        return []
    minutes = settings.research.stall_minutes
    trials = [name for name in still_seconds if name in state.proposals and not state.streams[name].over]
    return [StopStream(name, f"no step for {minutes:g} min") for name in trials if still_seconds[name] >= minutes * 60]


def joins(state: State, settings: RunSettings, now: float) -> list[JoinProposal]:
    """The proposal that is to join now."""
    research = settings.research
    if research is None or state.stopped or sum(_trains(state, one) for one in _open(state)) >= research.at_once:
        return []
    free = [one for one in waiting(state) if not _parked(state, research, one)]
    if not free or no_room(state, settings, now, settings.streams[research.start]):
        return []
    return [JoinProposal(free[0].event.ref)]


def admit_proposal(
    state: State, settings: RunSettings, name: str, like: str, made: StreamSettings,
    others: Mapping[str, StreamSettings],
) -> str:  # fmt: skip
    """The phase in which it is made.  `others`: settings by name of all streams and proposals.

    Raises Refusal for a proposal that is outside of the space of the phase, was made before, or for which there is no room.
    """
    research = settings.research
    if research is None:
        raise Refusal(f"{name}: this run takes no proposals; `swarm research GOAL.md` starts one that does")
    phase = phase_of(state, research)
    if phase is None or f"{TASKS}/{phase}" not in state.tasks:
        raise Refusal(f"{name}: no phase is open; `swarm wait --until claimable` returns when one is")
    if len(state.proposals) >= research.proposals:
        raise Refusal(
            f"{name}: {research.proposals} proposals were made, as many as the goal allows; see `swarm ledger`"
        )
    _admit_changes(name, settings.streams[like], made, research, phase)
    own = _compared(made)
    if twin := next((other for other, one in others.items() if _compared(one) == own), None):
        raise Refusal(f"{name}: {twin} has the same settings; see `swarm ledger`, and propose another change")
    return phase


def differs_in_seed_alone(one: StreamSettings, other: StreamSettings) -> bool:
    return {**_compared(one), "seed": 0} == {**_compared(other), "seed": 0}


def _admit_changes(name: str, like: StreamSettings, made: StreamSettings, research: Research, phase: str) -> None:
    space, before, after = research.phases[phase].space, _compared(like), _compared(made)
    changed = [key for key in after if before.get(key) != after[key]]
    stated = made.model_dump(mode="json", exclude_defaults=True)
    if not changed:
        raise Refusal(f"{name}: changes nothing; name a setting of {', '.join(space)}")
    for key in changed:
        if key not in space:
            raise Refusal(f"{name}: {key} is outside of phase {phase}; it may change {', '.join(space)}")
        if not allows(space[key], after[key], before.get(key), stated.get(key)):
            raise Refusal(f"{name}: {key}={after[key]} is outside of the space of phase {phase}; see `swarm ledger`")


def _compared(settings: StreamSettings) -> dict[str, Any]:
    return {key: value for key, value in settings.model_dump(mode="json").items() if key not in UNCOMPARED}


def _open(state: State) -> list[Proposal]:
    return [one for one in state.proposals.values() if one.conclusion is None]


def _trains(state: State, one: Proposal) -> bool:
    stream = state.streams.get(one.event.ref)
    return stream is not None and trains(stream)


def _parked(state: State, research: Research, one: Proposal) -> str:
    """Why it may not join yet."""
    if objection := _objection(state, one.event.ref):
        return objection
    approved = _approvals(state, one)
    return f"{approved} of {research.approvals} approvals" if approved < research.approvals else ""


def _objection(state: State, name: str) -> str:
    return next((f"{by} objects: {why}" for by, why in state.objections_to(name)), "")


def _approvals(state: State, one: Proposal) -> int:
    """Of others than who made it."""
    return sum(o.agrees and by != one.by for (scope, by), o in state.opinions.items() if scope == one.event.ref)


def _conclusions(state: State, settings: RunSettings, research: Research) -> Iterator[JudgeProposal | DiscardProposal]:
    """Of those that were trained: a comparison where there is a score, else the reason why there is none."""
    best = best_of(state, research)
    for one in _open(state):
        stream = state.streams.get(one.event.ref)
        if stream is None:
            continue
        if stream.over:
            yield DiscardProposal(stream.name, stream.failed or "it was stopped before its end")
        elif stream.score and (objection := _objection(state, stream.name)):
            yield DiscardProposal(stream.name, objection)
        elif stream.score and (beaten := state.streams[best].score):
            if stream.score.rows_sha256[:SHORT] != beaten.rows_sha256[:SHORT]:
                yield DiscardProposal(stream.name, f"scored on other rows than {best}: name `test_datasets`")
                continue
            alike = differs_in_seed_alone(settings.streams[stream.name], settings.streams[best])
            yield JudgeProposal(stream.name, best, alike)
        elif state.next_role(stream) is None and not stream.score:
            yield DiscardProposal(stream.name, "it has no score")


def _lost(state: State, settings: RunSettings, research: Research, now: float) -> Iterator[DiscardProposal]:
    """Those that can join no more: nothing that was proposed stays without an answer."""
    start = state.streams[research.start]
    for one in waiting(state):
        parked, task = _parked(state, research, one), state.tasks.get(f"{TASKS}/{one.event.phase}")
        if start.over:
            yield DiscardProposal(one.event.ref, f"{start.name}, which is to be beaten, has no result")
        elif parked and ((task and task.done) or _is_idle(state, research, now)):
            yield DiscardProposal(one.event.ref, parked)
        elif not _anything_trains(state) and (why := no_room(state, settings, now, settings.streams[research.start])):
            yield DiscardProposal(one.event.ref, why)


def _opening(state: State, settings: RunSettings, research: Research, now: float) -> list[Result]:
    phase = phase_of(state, research)
    if phase is None or f"{TASKS}/{phase}" in state.tasks or _open(state):
        return []
    if not _takes_more(state, settings, research, now):
        return []
    return [
        OpenTask(
            f"{TASKS}/{phase}", f"lead phase {phase}: propose changes of {', '.join(research.phases[phase].space)}"
        )
    ]


def _takes_more(state: State, settings: RunSettings, research: Research, now: float) -> bool:
    start = state.streams.get(research.start)
    if start is None or start.over or phase_of(state, research) is None or len(state.proposals) >= research.proposals:
        return False
    is_full = no_room(state, settings, now, settings.streams[research.start]) and not _anything_trains(state)
    return not is_full and not _is_idle(state, research, now)


def _is_idle(state: State, research: Research, now: float) -> bool:
    """Nobody leads the phase, nothing trains, and nothing was proposed or concluded for a while."""
    led = any(ref.startswith(f"{TASKS}/") and task.lease for ref, task in state.tasks.items())
    trained = max((stream.turn_since for stream in state.streams.values()), default=0.0)
    last = max(state.started, state.researched, trained)
    return not led and not _anything_trains(state) and now - last >= research.idle_minutes * 60


def _anything_trains(state: State) -> bool:
    return any(map(trains, state.streams.values()))
