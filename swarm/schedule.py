"""`decide(state, workers, now)`: what the coordinator does next, as commands; pure, so that every decision can be tested.

Claims are appended and folded before a worker hears of them; nothing here is remembered between two calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swarm.events import ROLES
from swarm.promotion import Choice, choose
from swarm.settings import RunSettings
from swarm.state import State, Stream, Task


@dataclass(frozen=True, slots=True)
class Worker:
    """What the coordinator sees of one worker process now."""

    name: str
    roles: tuple[str, ...]
    state: Literal["starting", "idle", "busy", "gone", "parked"]
    """parked: it died so often that it is not started again."""
    silent_seconds: float = 0.0
    why_gone: str = ""
    streams: tuple[str, ...] | None = None
    """The streams that fit its device; None: all."""
    told: str = ""
    """What it last said it does with its task: working or paused."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Claim the task on the worker's behalf, then assign it."""

    ref: str
    worker: str


@dataclass(frozen=True, slots=True)
class Expire:
    """End a lease whose holder died or fell silent."""

    ref: str
    token: int
    why: str


@dataclass(frozen=True, slots=True)
class Order:
    """Tell the holder to pause, go on, or save and stop."""

    ref: str
    token: int
    worker: str
    what: Literal["pause", "resume", "stop"]


@dataclass(frozen=True, slots=True)
class Publish:
    """Make a validated checkpoint the stream's adapter."""

    stream: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A stream has failed."""

    stream: str
    why: str


@dataclass(frozen=True, slots=True)
class Promote:
    """Make the winner's adapter the run's."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over."""

    rc: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Dismiss:
    """A worker for whose roles no work can come any more may leave and free its memory."""

    worker: str


Command = Claim | Expire | Order | Publish | GiveUp | Promote | Finish | Dismiss


def decide(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """The commands for this moment, in the order in which they are carried out.

    `now` is log time (UTC seconds); workers' silence is measured by the caller's monotonic clock.
    """
    if state.end or state.run is None:
        return []
    expired = _expiries(state, workers, now, settings)
    if expired:
        return [*expired]
    results: list[Command] = [*_failures(state, settings), *_starved(state, workers), *_publications(state)]
    if results:
        return results
    return [*_orders(state, workers), *(_claims(state, workers) or _ending(state, workers, settings))]


def _expiries(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    known = {worker.name: worker for worker in workers}
    found: list[Command] = []
    for task in state.held():
        assert task.lease
        holder = known.get(task.lease.by)
        why = ""
        if holder is None:
            if now >= task.lease.until:
                why = "the lease ran out"
        elif holder.state in {"gone", "parked"}:
            why = holder.why_gone or "the worker is gone"
        elif holder.silent_seconds >= settings.lease_seconds:
            why = f"no heartbeat for {holder.silent_seconds:.0f} s"
        if why:
            found.append(Expire(task.ref, task.lease.token, why))
    return found


def _failures(state: State, settings: RunSettings) -> list[Command]:
    found: list[Command] = []
    for stream in state.streams.values():
        if stream.failed:
            continue
        if stream.verdict and stream.verdict.result == "FAIL":
            found.append(GiveUp(stream.name, f"validation: {stream.verdict.why or 'FAIL'}"))
            continue
        for role in ROLES:
            failures = state.tasks[f"{stream.name}/{role}"].failures
            if len(failures) > settings.retries:
                found.append(GiveUp(stream.name, f"{role}: {failures[-1]}"))
                break
    return found


def _starved(state: State, workers: Sequence[Worker]) -> list[Command]:
    """Streams whose next role nobody will ever take."""
    found: list[Command] = []
    for task in state.ready():
        if task.role:
            able = [worker for worker in workers if _fits(worker, task)]
            if able and all(worker.state == "parked" for worker in able):
                found.append(
                    GiveUp(
                        task.ref.partition("/")[0],
                        f"{task.role}: {able[-1].why_gone or 'its workers died again and again'}",
                    )
                )
    return found


def _publications(state: State) -> list[Command]:
    return [
        Publish(s.name)
        for s in state.streams.values()
        if s.verdict
        and s.verdict.result != "FAIL"
        and s.trained
        and not s.failed
        and (s.adapter is None or s.adapter.sha256 != s.verdict.sha256)
    ]


def _orders(state: State, workers: Sequence[Worker]) -> list[Command]:
    """Orders are repeated until the worker's own word agrees: a lost one costs a tick, not a stream."""
    told = {worker.name: worker.told for worker in workers}
    found: list[Command] = []
    for task in state.held():
        assert task.lease
        stream = state.streams.get(task.ref.partition("/")[0])
        if stream is None or task.lease.by not in told:
            continue
        wish = "stop" if state.stopped else stream.wish
        said = told[task.lease.by]
        if wish == "stop":
            found.append(Order(task.ref, task.lease.token, task.lease.by, "stop"))
        elif wish == "pause" and said != "paused":
            found.append(Order(task.ref, task.lease.token, task.lease.by, "pause"))
        elif wish == "go" and said == "paused":
            found.append(Order(task.ref, task.lease.token, task.lease.by, "resume"))
    return found


def _claims(state: State, workers: Sequence[Worker]) -> list[Command]:
    """Each idle worker takes the first ready task of a role and stream that it may do."""
    ready = [task for task in state.ready() if task.role]
    found: list[Command] = []
    for worker in workers:
        if worker.state != "idle":
            continue
        task = next((task for task in ready if _fits(worker, task)), None)
        if task:
            ready.remove(task)
            found.append(Claim(task.ref, worker.name))
    return found


def _fits(worker: Worker, task: Task) -> bool:
    return task.role in worker.roles and (worker.streams is None or task.ref.partition("/")[0] in worker.streams)


def _ending(state: State, workers: Sequence[Worker], settings: RunSettings) -> list[Command]:
    open_streams = [s for s in state.streams.values() if not _settled(state, s)]
    if state.held() or (open_streams and not state.stopped):
        return _dismissals(state, workers, open_streams)
    if state.stopped:
        return [Finish(130, "stopped; `swarm resume` goes on")]
    return _promotion(state, settings)


def _settled(state: State, stream: Stream) -> bool:
    return stream.over or state.next_role(stream) is None


def _promotion(state: State, settings: RunSettings) -> list[Command]:
    failed = [s.name for s in state.streams.values() if s.failed]
    rc = 1 if failed else 0
    if state.promoted is None:
        choice = choose(state, settings.promotion)
        if choice.winner and _gate_is_open(state, settings):
            return [Promote(choice)]
        if not choice.winner:
            return [Finish(rc, choice.why)]
        return []  # the winner waits for approvals or for an objection to be settled
    return [Finish(rc, f"failed: {', '.join(failed)}" if failed else "")]


def _gate_is_open(state: State, settings: RunSettings) -> bool:
    return not state.objections and len(set(state.approvals)) >= settings.promotion.approvals


def _dismissals(state: State, workers: Sequence[Worker], open_streams: Sequence[Stream]) -> list[Command]:
    """A role is still needed while an open stream has not finished that task."""
    needed = {role for stream in open_streams for role in ROLES if state.tasks[f"{stream.name}/{role}"].done is None}
    return [Dismiss(w.name) for w in workers if w.state == "idle" and not needed.intersection(w.roles)]
