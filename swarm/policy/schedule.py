"""`decide(state, workers, now)`: what the coordinator does next, as commands; pure, so that every decision can be tested.

Claims are appended and folded before a worker hears of them; nothing here is remembered between two calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from swarm.event import DONE_BY, ROLES, Role
from swarm.messages import Held, What
from swarm.policy import feedback, research
from swarm.policy.batching import SharedKey, batch_key, shared_key
from swarm.policy.commands import (
    Command,
    Compare,
    Dismiss,
    Ending,
    Finish,
    GiveUp,
    GoBack,
    Grant,
    LookAtSealed,
    PromoteWinner,
    Publish,
    Revoke,
    SendOrder,
    StopStream,
)
from swarm.policy.halving import losers
from swarm.policy.promotion import choose, to_compare, unexamined, waits_for
from swarm.policy.pruning import questions
from swarm.policy.searching import more_to_come, suggestions
from swarm.policy.spending import over_budget
from swarm.settings import RunSettings
from swarm.state import Lease, State, Stream, Task

LOG_SECOND = 1.0
"""Log times are whole seconds, cut: the time between two entries may be longer than they say by this."""
MAX_ROLLBACKS = 3
"""A stream goes back to an earlier checkpoint at most so often; then it fails."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What the coordinator knows of one worker process now; the leases that it holds are in the state."""

    name: str
    roles: tuple[str, ...]
    state: Literal["starting", "importing", "ready", "gone", "parked"]
    """starting: not heard yet (it may hold leases: see `Supervisor`).  parked: it died so often that it is not started again."""
    silent_seconds: float = 0.0
    why_gone: str = ""
    starts_at_once: bool = False
    """It has its imports from the fork server."""
    streams: tuple[str, ...] | None = None
    """The streams that fit its device; None: all."""
    slots: int = 1
    """Streams that it trains at once."""
    holds: tuple[Held, ...] = ()
    """The leases that it holds, as its last heartbeat says."""
    strays: tuple[Held, ...] = ()
    """Of these, those that are over: it still works on them."""
    no_progress_seconds: float = 0.0
    """Since a step of anything that it works on has ended, although it is heard."""
    yields: bool = False
    """Whether it gives its device, or some of its threads, to others or takes them back: it leaves at the next boundary."""

    def reported_of(self, task: Task) -> Held | None:
        """What its last heartbeat reports of this task's present lease (a token from before a hand-over counts)."""
        lease = task.lease
        if lease is None:
            return None
        return next((h for h in self.holds if h.ref == task.ref and lease.first <= h.token <= lease.token), None)


def decide(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """The commands for this moment, in the order in which they are carried out.

    `now` is log time (UTC seconds); workers' silence is measured by the caller's monotonic clock.
    """
    if state.end or state.run is None:
        return []
    if over := _revocations(state, workers, now, settings):
        return [*over]
    results: list[Command] = [
        *_failures(state, settings),
        *_starved(state, workers, now, settings),
        *_publications(state),
        *(StopStream(name, why) for name, why in losers(state, settings)),
        *_unaffordable(state, settings, now),
        *research.stalls(state, settings, _still_seconds(state, workers)),
        *research.results(state, settings, now),
        *feedback.results(state, settings, now),
    ]
    if results:
        return results
    next_work = _grants(state, workers, now, settings) or _ending(state, workers, now, settings)
    return [
        *_orders(state, workers, settings, measures=_wait_for_a_place(state, next_work)),
        *_departures(state, workers),
        *suggestions(state, settings, now),
        *questions(state, settings),
        *research.joins(state, settings, now),
        *feedback.joins(state),
        *next_work,
    ]


# ---- leases that end --------------------------------------------------------------------------------------------


def _revocations(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Revoke]:
    known = {worker.name: worker for worker in workers}
    lost = {name: over for name in _holders(state) if (over := _lost(known.get(name), state.held_by(name), settings))}
    found = list(lost.values())
    for task in state.held():
        assert task.lease
        if task.lease.worker in lost:
            continue
        worker = known.get(task.lease.worker or "")
        endings = _endings([task], worker)
        if late := _late(task, settings, _worked_seconds(task, worker, now)):
            found.append(Revoke(endings, late, kill=task.lease.worker or ""))
            if worker:
                beside = [one for one in state.held_by(worker.name) if one is not task]
                lost[worker.name] = Revoke(_endings(beside, worker), f"beside {task.ref}: {late}", failed=False)
                found += [lost[worker.name]] if beside else []
        elif task.lease.overdue(now):
            found.append(Revoke(endings, "the lease ran out"))
    return found


def _holders(state: State) -> list[str]:
    """The worker processes that hold tasks."""
    return list(dict.fromkeys(task.lease.worker for task in state.held() if task.lease and task.lease.worker))


def _lost(worker: Worker | None, tasks: Sequence[Task], settings: RunSettings) -> Revoke | None:
    """The end of all leases of a worker that is gone or silent; only for a task that was held alone it counts as a failure."""
    if worker is None:
        return Revoke(_endings(tasks, None), "the run has no such worker any more", failed=False)
    alone = len(tasks) == 1
    if worker.state in {"gone", "parked"}:
        return Revoke(_endings(tasks, worker), worker.why_gone or "the worker is gone", failed=alone, held=len(tasks))
    if worker.silent_seconds >= settings.lease_seconds:
        why = f"no heartbeat for {worker.silent_seconds:.0f} s"
        return Revoke(_endings(tasks, worker), why, failed=alone, held=len(tasks), kill=worker.name)
    return None


def _endings(tasks: Sequence[Task], worker: Worker | None) -> tuple[Ending, ...]:
    reported = [worker.reported_of(task) if worker else None for task in tasks]
    return tuple(
        Ending(task.ref, task.lease.token, held.worked if held else None)
        for task, held in zip(tasks, reported, strict=True)
        if task.lease
    )


def _late(task: Task, settings: RunSettings, held_seconds: float = 0.0) -> str:
    """The reason if a validation has taken too long, counted over all its leases; empty: it still has time."""
    minutes = settings.validation_minutes
    over = task.role in {"validate", "sealed"} and task.seconds + held_seconds >= minutes * 60
    return f"no answer within {minutes:g} minutes" if over else ""


def _worked_seconds(task: Task, worker: Worker | None, now: float) -> float:
    """Under its lease.  A worker says itself how long it works on a task: others may come first."""
    assert task.lease
    reported = worker.reported_of(task) if worker else None
    return reported.worked if reported else now - task.lease.began


def _failures(state: State, settings: RunSettings) -> list[Command]:
    found: list[Command] = []
    for stream in state.streams.values():
        if stream.failed:
            continue
        sealed = state.tasks.get(f"{stream.name}/sealed")
        if sealed and not sealed.done and len(sealed.failures) > settings.retries:
            why = f"the sealed rows cannot be judged: {sealed.failures[-1]}"
            return [Finish(1, f"{stream.name} is not promoted: {why}")]
        if why := _unfit(state, stream, settings):
            back = len(stream.rejected) < MAX_ROLLBACKS and stream.earlier()
            found.append(GoBack(stream.name, why) if back else GiveUp(stream.name, f"validation: {why}"))
            continue
        for role in ROLES:
            task = state.tasks[f"{stream.name}/{role}"]
            if task.given_up(settings.retries):
                found.append(GiveUp(stream.name, f"{role}: {task.failures[-1]}"))
                break
    return found


def _unfit(state: State, stream: Stream, settings: RunSettings) -> str:
    """Why the candidate fails validation: a FAIL, or a validation that took too long, which counts as one."""
    task = state.tasks[f"{stream.name}/validate"]
    if task.lease is None and stream.verdict and stream.verdict.result == "FAIL":
        return f"FAIL: {stream.verdict.why or 'no reason given'}"
    if task.failures and task.lease is None and not task.done and (late := _late(task, settings, LOG_SECOND)):
        return f"FAIL: {late}"
    if task.given_up(settings.retries) and stream.trained:
        return f"FAIL: no answer: {task.failures[-1]}"
    return ""


def _starved(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """Streams whose next task nobody can take any more."""
    found: list[Command] = []
    for task in state.ready():
        if task.role and "worker" not in (agents := settings.roles.get(task.role, ["worker"])):
            if _agents_are_late(state, task, now, settings):
                why = f"waited {settings.roles_wait_seconds:g} s for {', '.join(agents)}, and no worker may do it"
                found.append(GiveUp(task.ref.partition("/")[0], f"{task.role}: {why}"))
        elif task.role:
            able = [worker for worker in workers if _fits(worker, task)]
            if able and all(worker.state == "parked" for worker in able):
                why = able[-1].why_gone or "its workers died again and again"
                found.append(GiveUp(task.ref.partition("/")[0], f"{task.role}: {why}"))
    return found


def _unaffordable(state: State, settings: RunSettings, now: float) -> list[Command]:
    """Streams for which the budget has no room, once none trains that could leave some of its share."""
    if any(task.role == "train" for task in state.held()):
        return []
    return [StopStream(name, why) for name, why in over_budget(state, settings, now).items()]


def _still_seconds(state: State, workers: Sequence[Worker]) -> dict[str, float]:
    """By stream that is trained: since when no step has ended."""
    held = [(task, worker.no_progress_seconds) for worker in workers for task in state.held_by(worker.name)]
    return {task.ref.partition("/")[0]: seconds for task, seconds in held if task.role == "train"}


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


# ---- orders to workers -----------------------------------------------------------------------------------------------


def _wait_for_a_place(state: State, commands: Sequence[Command]) -> bool:
    """Whether trainings wait that these commands do not grant: more may fit than was predicted."""
    granted = {ref for command in commands if isinstance(command, Grant) for ref in command.refs}
    return any(task.role == "train" and task.ref not in granted for task in state.ready())


def _orders(state: State, workers: Sequence[Worker], settings: RunSettings, *, measures: bool) -> list[Command]:
    """Orders are decided anew until the worker's heartbeat confirms them, so that a lost one delays a stream and nothing worse."""
    known = {worker.name: worker for worker in workers}
    found: list[Command] = [
        SendOrder(stray.ref, stray.token, worker.name, "revoke") for worker in workers for stray in worker.strays
    ]
    for task in state.held():
        assert task.lease
        stream = state.streams.get(task.ref.partition("/")[0])
        worker = known.get(task.lease.worker or "")
        if stream is None or worker is None:
            continue
        leaves = worker.yields and task.role == "train"  # other tasks are short: it leaves when they are done
        reported = worker.reported_of(task)
        what = _order(task.lease, reported, "stop" if state.stopped or leaves else stream.wish)
        if what is None and measures and reported and _is_unmeasured(reported, settings):
            what = "measure"
        if what:
            found.append(SendOrder(task.ref, task.lease.token, worker.name, what))
    return found


def _is_unmeasured(held: Held, settings: RunSettings) -> bool:
    """Whether it trains on the shared engine, which can measure what each of its streams takes, and has not said it."""
    trains = held.state == "working" and held.ref == f"{held.stream}/train" and held.own_bytes is None
    return trains and batch_key(settings.streams[held.stream]).engine == "shared"


def _order(lease: Lease, reported: Held | None, wish: str) -> What | None:
    if reported and reported.token < lease.token:
        return "hand"  # first: the worker does not know the token yet that other orders carry
    if wish == "stop":
        return "stop"
    paused = reported is not None and reported.state == "paused"
    if wish == "pause" and not paused:
        return "pause"
    return "resume" if wish == "go" and paused else None


def _departures(state: State, workers: Sequence[Worker]) -> list[Command]:
    """Workers that give devices to others, or take them back, once they hold nothing: the supervisor starts them as they may be then."""
    leaving = [w for w in workers if w.yields and w.state == "ready" and not w.strays and not state.held_by(w.name)]
    return [Dismiss(worker.name, "the run yields devices") for worker in leaving]


# ---- who does what next ----------------------------------------------------------------------------------------------


def _grants(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    """Each ready task goes to the worker that may do it and holds the least."""
    over = {f"{name}/train" for name in over_budget(state, settings, now)}
    ready = [
        t for t in state.ready() if t.role and t.ref not in over and not _waits_for_agents(state, t, now, settings)
    ]
    free = [w for w in workers if w.state == "ready" and not w.strays and not w.yields]
    heard = [w for w in free if w.silent_seconds < settings.lease_seconds]
    hands = {worker.name: state.held_by(worker.name) for worker in heard}
    given: dict[str, list[str]] = {name: [] for name in hands}
    for task in ready:
        able = [w for w in workers if w.name in hands and _may_take(w, hands[w.name], task, settings)]
        if able:
            name = min(able, key=lambda worker: len(hands[worker.name])).name
            hands[name] = [*hands[name], task]
            given[name].append(task.ref)
    return [Grant(tuple(refs), name) for name, refs in given.items() if refs]


def _may_take(worker: Worker, held: Sequence[Task], task: Task, settings: RunSettings) -> bool:
    """Whether it has room for the task beside what it holds: only tasks that it can do together are held together."""
    if not _fits(worker, task):
        return False
    if not held:
        return True
    if any(one.alone for one in (task, *held)) or (task.role == "train" and len(held) >= worker.slots):
        return False
    key = _key(task, settings)
    return key is not None and key == _key(held[0], settings)  # what it holds has one key


def _key(task: Task, settings: RunSettings) -> SharedKey | None:
    return shared_key(task.role, settings.streams[task.ref.partition("/")[0]]) if task.role else None


def _waits_for_agents(state: State, task: Task, now: float, settings: RunSettings) -> bool:
    """Whether the config reserves the task for agents; where workers may do it too, only until `roles_wait_seconds` are over."""
    doers = settings.roles[task.role] if task.role and task.role in settings.roles else ["worker"]
    if "worker" not in doers:
        return True
    return len(doers) > 1 and not _agents_are_late(state, task, now, settings)


def _agents_are_late(state: State, task: Task, now: float, settings: RunSettings) -> bool:
    return now >= state.streams[task.ref.partition("/")[0]].turn_since + settings.roles_wait_seconds


def _fits(worker: Worker, task: Task) -> bool:
    return (
        task.role is not None
        and DONE_BY.get(task.role, task.role) in worker.roles
        and (worker.streams is None or task.ref.partition("/")[0] in worker.streams)
    )


# ---- the end ---------------------------------------------------------------------------------------------------------


def _ending(state: State, workers: Sequence[Worker], now: float, settings: RunSettings) -> list[Command]:
    if more_to_come(state, settings, now) or research.is_open(state, settings, now):
        return []  # its worker is kept for it
    if _works_on(state) or (state.open_streams() and not state.stopped):
        return _dismissals(state, workers)
    if state.stopped:
        return [Finish(130, "stopped; `swarm resume` goes on")]
    if feedback.is_open(state, settings, now):
        return _dismissals(state, workers)
    return _promotion(state, settings) or _dismissals(state, workers)


def _works_on(state: State) -> bool:
    """Whether a stream's task is held; a run that is to stop waits for its workers, which save, and not for agents."""
    held = [task.lease for task in state.held() if task.role]
    return any(lease and (lease.worker or not state.stopped) for lease in held)


def _promotion(state: State, settings: RunSettings) -> list[Command]:
    """Nothing while the winner waits for approvals: `promotion.waiting` says whose."""
    failed = [s.name for s in state.streams.values() if s.failed]
    rc = 1 if failed else 0
    if state.promoted is None:
        streams, key = to_compare(state, settings.promotion)
        if streams:
            return [Compare(tuple(stream.name for stream in streams), key)]
        choice = choose(state, settings.promotion)
        if not choice.winner:
            return [Finish(rc, choice.why)]
        if waits_for(state, settings.promotion, choice.winner):
            return []
        if why := unexamined(settings, state, choice.winner):
            return _examination(state, choice.winner, why, rc)
        return [PromoteWinner(choice)]
    return [Finish(rc, f"failed: {', '.join(failed)}" if failed else "")]


def _examination(state: State, name: str, why: str, rc: int) -> list[Command]:
    """What comes before the promotion of a stream that is to be examined on sealed rows; nothing while it is."""
    task = state.tasks.get(f"{name}/sealed")
    if state.streams[name].examined:
        return [Finish(rc, f"{name} is not promoted: {why}")]
    return [LookAtSealed(name)] if task is None or task.done else []  # never looked at, or at other weights


def _dismissals(state: State, workers: Sequence[Worker]) -> list[Command]:
    idle = [w for w in workers if w.state == "ready" and not state.held_by(w.name)]
    needed = {at_once: roles_needed(state, at_once=at_once) for at_once in (False, True)}
    return [Dismiss(worker.name) for worker in idle if not needed[worker.starts_at_once].intersection(worker.roles)]


def roles_needed(state: State, *, at_once: bool = False) -> frozenset[Role]:
    """Roles for which work may still come: those whose tasks some open stream has not finished.

    `at_once`: of workers that start in milliseconds.  They need not wait in memory while a stream trains for what comes after that.
    """
    streams = [] if state.stopped else state.open_streams()
    needed = {role for stream in streams for role in _roles_to_come(state, stream, at_once=at_once)}
    sealed = state.run and state.run.sealed and not state.promoted and not state.stopped
    return frozenset(needed | ({DONE_BY["sealed"]} if sealed else set()))


def _roles_to_come(state: State, stream: Stream, *, at_once: bool) -> list[Role]:
    roles: list[Role] = [role for role in ROLES if state.tasks[f"{stream.name}/{role}"].done is None]
    return roles[: roles.index("train") + 1] if at_once and "train" in roles else roles
