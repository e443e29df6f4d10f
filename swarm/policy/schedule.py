"""`decide(state, workers, now)`: what the coordinator does next, as commands; pure, so that every decision can be tested.

Claims are appended and folded before a worker hears of them; nothing here is remembered between two calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from swarm.events import ROLES
from swarm.policy.promotion import Choice, choose, waits_for
from swarm.settings import RunSettings
from swarm.state import Lease, State, Stream, Task

LOG_SECOND = 1.0
"""Log times are whole seconds, cut: what the entries tell may be so much shorter than it was."""
BACKS = 3
"""So often a stream goes back to an earlier checkpoint; one whose last few will not do has another fault."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What the coordinator sees of one worker process now."""

    name: str
    roles: tuple[str, ...]
    state: Literal["starting", "importing", "idle", "busy", "gone", "parked"]
    """starting: not heard yet (it may hold a lease: see `Supervisor`).  parked: it died so often that it is not started again."""
    silent_seconds: float = 0.0
    why_gone: str = ""
    streams: tuple[str, ...] | None = None
    """The streams that fit its device; None: all."""
    told: str = ""
    """What it last said it does with its task: working or paused."""
    holds: tuple[str, int] | None = None
    """The task that it last said it works on, and the token under which it reports."""


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
    failed: bool = True
    """False where the task is not to blame."""


@dataclass(frozen=True, slots=True)
class Order:
    """Tell the worker to pause, go on, save and stop, or report under the token of a hand-over."""

    ref: str
    token: int
    worker: str
    what: Literal["pause", "resume", "stop", "hand"]


@dataclass(frozen=True, slots=True)
class Publish:
    """Make a validated checkpoint the stream's adapter."""

    stream: str


@dataclass(frozen=True, slots=True)
class GoBack:
    """What was to be judged will not do: judge the newest earlier checkpoint that still stands, or give up."""

    stream: str
    why: str


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


Command = Claim | Expire | Order | Publish | GoBack | GiveUp | Promote | Finish | Dismiss


def decide(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """The commands for this moment, in the order in which they are carried out.

    `now` is log time (UTC seconds); workers' silence is measured by the caller's monotonic clock.
    """
    if state.end or state.run is None:
        return []
    expired = _expiries(state, workers, now, settings)
    if expired:
        return [*expired]
    results: list[Command] = [
        *_failures(state, settings),
        *_starved(state, workers, now, settings),
        *_publications(state),
    ]
    if results:
        return results
    return [*_orders(state, workers), *(_claims(state, workers, now, settings) or _ending(state, workers, settings))]


def _expiries(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    known = {worker.name: worker for worker in workers}
    found: list[Command] = []
    for task in state.held():
        assert task.lease
        why, failed = _over(task, task.lease, known, now, settings)
        if why:
            found.append(Expire(task.ref, task.lease.token, why, failed=failed))
    return found


def _over(task: Task, lease: Lease, known: Mapping[str, Worker], now: float, settings: RunSettings) -> tuple[str, bool]:
    """Why a lease is over, and whether the task is to blame."""
    worker = known.get(lease.worker) if lease.worker else None
    if lease.worker and worker is None:
        return "the run has no such worker any more", False
    if late := _late(task, settings, now - lease.began):
        return late, True
    if worker is None:
        return ("the lease ran out" if lease.overdue(now) else ""), True
    if worker.state in {"gone", "parked"}:
        return worker.why_gone or "the worker is gone", True
    if worker.state == "idle":  # its last word was refused; where the token was handed on meanwhile, nobody is to blame
        return "the worker has left the task", lease.token == lease.first
    if worker.silent_seconds >= settings.lease_seconds:
        return f"no heartbeat for {worker.silent_seconds:.0f} s", True
    return "", True


def _late(task: Task, settings: RunSettings, held_seconds: float = 0.0) -> str:
    """That a validation has no answer in time, counted over all its leases; empty: it still has time."""
    minutes = settings.validation_minutes
    over = task.role == "validate" and task.seconds + held_seconds >= minutes * 60
    return f"no answer within {minutes:g} minutes" if over else ""


def _failures(state: State, settings: RunSettings) -> list[Command]:
    found: list[Command] = []
    for stream in state.streams.values():
        if stream.failed:
            continue
        if why := _unfit(state, stream, settings):
            back = len(stream.rejected) < BACKS and stream.earlier()
            found.append(GoBack(stream.name, why) if back else GiveUp(stream.name, f"validation: {why}"))
            continue
        for role in ROLES:
            failures = state.tasks[f"{stream.name}/{role}"].failures
            if len(failures) > settings.retries:
                found.append(GiveUp(stream.name, f"{role}: {failures[-1]}"))
                break
    return found


def _unfit(state: State, stream: Stream, settings: RunSettings) -> str:
    """Why what was trained will not do: a FAIL, or no answer in time, which counts as one."""
    task = state.tasks[f"{stream.name}/validate"]
    if task.lease is None and stream.verdict and stream.verdict.result == "FAIL":
        return f"FAIL: {stream.verdict.why or 'no reason given'}"
    if task.failures and task.lease is None and not task.done and (late := _late(task, settings, LOG_SECOND)):
        return f"FAIL: {late}"
    if len(task.failures) > settings.retries and stream.trained:
        return f"FAIL: no answer: {task.failures[-1]}"
    return ""


def _starved(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """Streams whose next role nobody will ever take."""
    found: list[Command] = []
    for task in state.ready():
        if task.role and "worker" not in (agents := settings.roles.get(task.role, ["worker"])):
            if _agents_are_late(state, task, now, settings):
                why = f"waited {settings.roles_wait_seconds:g} s for {', '.join(agents)}, and no worker may do it"
                found.append(GiveUp(task.ref.partition("/")[0], f"{task.role}: {why}"))
        elif task.role:
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
        and state.tasks[f"{s.name}/validate"].done
        and (s.adapter is None or s.adapter.sha256 != s.verdict.sha256)
    ]


def _orders(state: State, workers: Sequence[Worker]) -> list[Command]:
    """Orders are repeated until the worker's own word agrees: a lost one costs a tick, not a stream."""
    known = {worker.name: worker for worker in workers}
    found: list[Command] = []
    for task in state.held():
        assert task.lease
        stream = state.streams.get(task.ref.partition("/")[0])
        worker = known.get(task.lease.worker or "")
        if stream is None or worker is None:
            continue
        if what := _order(task, task.lease, worker, "stop" if state.stopped else stream.wish):
            found.append(Order(task.ref, task.lease.token, worker.name, what))
    return found


def _order(task: Task, lease: Lease, worker: Worker, wish: str) -> Literal["pause", "resume", "stop", "hand"] | None:
    if worker.holds and worker.holds[0] == task.ref and lease.first <= worker.holds[1] < lease.token:
        return "hand"  # first of all: other orders are for the token that it does not know yet
    if wish == "stop":
        return "stop"
    if wish == "pause" and worker.told != "paused":
        return "pause"
    return "resume" if wish == "go" and worker.told == "paused" else None


def _claims(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """Each idle worker takes the first ready task of a role and stream that it may do."""
    ready = [task for task in state.ready() if task.role and not _waits_for_agents(state, task, now, settings)]
    found: list[Command] = []
    for worker in workers:
        if worker.state != "idle":
            continue
        task = next((task for task in ready if _fits(worker, task)), None)
        if task:
            ready.remove(task)
            found.append(Claim(task.ref, worker.name))
    return found


def _waits_for_agents(state: State, task: Task, now: float, settings: RunSettings) -> bool:
    """Whether the config keeps the task for agents: where workers may do it too, until the agents' time is over."""
    doers = settings.roles[task.role] if task.role and task.role in settings.roles else ["worker"]
    if "worker" not in doers:
        return True
    return len(doers) > 1 and not _agents_are_late(state, task, now, settings)


def _agents_are_late(state: State, task: Task, now: float, settings: RunSettings) -> bool:
    return now >= state.streams[task.ref.partition("/")[0]].turn_since + settings.roles_wait_seconds


def _fits(worker: Worker, task: Task) -> bool:
    return task.role in worker.roles and (worker.streams is None or task.ref.partition("/")[0] in worker.streams)


def _ending(state: State, workers: Sequence[Worker], settings: RunSettings) -> list[Command]:
    open_streams = state.open_streams()
    if _works_on(state) or (open_streams and not state.stopped):
        return _dismissals(state, workers, open_streams)
    if state.stopped:
        return [Finish(130, "stopped; `swarm resume` goes on")]
    return _promotion(state, settings) or _dismissals(state, workers, [])


def _works_on(state: State) -> bool:
    """Whether a stream's task is held; who is asked to stop waits for workers, which save, and not for agents."""
    held = [task.lease for task in state.held() if task.role]
    return any(lease and (lease.worker or not state.stopped) for lease in held)


def _promotion(state: State, settings: RunSettings) -> list[Command]:
    """Nothing while the winner waits for people: `promotion.waiting` says for whom."""
    failed = [s.name for s in state.streams.values() if s.failed]
    rc = 1 if failed else 0
    if state.promoted is None:
        choice = choose(state, settings.promotion)
        if not choice.winner:
            return [Finish(rc, choice.why)]
        return [] if waits_for(state, settings.promotion, choice.winner) else [Promote(choice)]
    return [Finish(rc, f"failed: {', '.join(failed)}" if failed else "")]


def _dismissals(state: State, workers: Sequence[Worker], open_streams: Sequence[Stream]) -> list[Command]:
    """A role is still needed while an open stream has not finished that task."""
    needed = {role for stream in open_streams for role in ROLES if state.tasks[f"{stream.name}/{role}"].done is None}
    return [Dismiss(w.name) for w in workers if w.state == "idle" and not needed.intersection(w.roles)]
