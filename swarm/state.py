"""State is the fold of the log's entries, and `admit` says which event may come next: both pure, used by everybody.

Coordinator, dashboard, `status`, `replay`, restart after a crash and the tests fold with this one class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from swarm import events as ev
from swarm.events import ROLES, Event, Role


class Entry(Protocol):
    """What the fold needs of a log entry."""

    @property
    def seq(self) -> int: ...
    @property
    def author(self) -> str: ...
    @property
    def time(self) -> float: ...
    @property
    def event(self) -> Event: ...


class Refusal(Exception):
    """An event may not happen now; the text says why and what to do."""


@dataclass(slots=True)
class Lease:
    """Who holds a task, under which token."""

    token: int
    by: str
    until: float
    """Log time at which it ends unless renewed; a worker's heartbeats renew in memory instead."""


@dataclass(slots=True)
class Task:
    """One role's work on one stream, or work that an agent added."""

    ref: str
    role: Role | None = None
    lease: Lease | None = None
    done: ev.Done | None = None
    failures: list[str] = field(default_factory=list)
    """Why earlier attempts failed."""
    attempts: int = 0


@dataclass(slots=True)
class Stream:
    """One fine-tune and what its roles have handed over."""

    name: str
    wish: str = "go"
    """go, pause or stop: what people want of it."""
    of: str | None = None
    settings: str | None = None
    failed: str = ""
    prepared: ev.Prepared | None = None
    checkpoints: list[ev.Checkpoint] = field(default_factory=list)
    """In the order in which they were reported; the newest is the last."""
    trained: ev.Trained | None = None
    verdict: ev.Verdict | None = None
    score: ev.Score | None = None
    adapter: ev.Adapter | None = None

    @property
    def over(self) -> bool:
        """Nothing more will be done for it as things stand."""
        return bool(self.failed) or self.wish == "stop"


@dataclass(slots=True)
class State:
    """A run, as far as its log tells it."""

    seq: int = 0
    time: float = 0.0
    run: ev.Run | None = None
    started: float = 0.0
    stopped: bool = False
    """The whole run was asked to stop and not yet to go on."""
    end: ev.End | None = None
    streams: dict[str, Stream] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    promoted: ev.Promote | None = None
    approvals: list[str] = field(default_factory=list)
    objections: list[tuple[str, str]] = field(default_factory=list)
    """(who, why): a promotion waits while there is one."""
    idems: dict[tuple[str, str], int] = field(default_factory=dict)
    """(author, idempotency key) -> seq"""

    def apply(self, entry: Entry) -> None:
        """Fold one entry; entries come in the order of their seq, each once."""
        self.seq, self.time = entry.seq, entry.time
        if entry.event.idem:
            self.idems[entry.author, entry.event.idem] = entry.seq
        match entry.event:
            case ev.Run():
                self.run, self.started = entry.event, entry.time
            case ev.Stream(ref=name, of=of, settings=settings):
                self.streams[name] = Stream(name, of=of, settings=settings)
                self.tasks.update({f"{name}/{role}": Task(f"{name}/{role}", role) for role in ROLES})
            case ev.Task(ref=ref):
                self.tasks[ref] = Task(ref)
            case ev.Pause() | ev.Resume() | ev.Stop():
                self._steer(entry.event)
            case ev.Fail(ref=name, why=why):
                self.streams[name].failed = why
            case ev.End():
                self.end = entry.event
            case ev.Claim() | ev.Renew() | ev.Hand() | ev.Done() | ev.Drop() | ev.Expire():
                self._lease(entry, entry.event)
            case ev.Promote():
                self.promoted = entry.event
            case ev.Approve():
                self.approvals.append(entry.author)
                self.objections = [o for o in self.objections if o[0] != entry.author]
            case ev.Object(why=why):
                self.objections.append((entry.author, why))
            case ev.Prepared() | ev.Checkpoint() | ev.Trained() | ev.Verdict() | ev.Score() | ev.Adapter():
                self._hand_over(self.streams[entry.event.stream], entry.event)
            case _:  # posts, amendments, seals and heads are for readers
                pass

    def _steer(self, event: ev.Pause | ev.Resume | ev.Stop) -> None:
        wish = {"pause": "pause", "resume": "go", "stop": "stop"}[event.kind]
        if event.ref != "run":
            self.streams[event.ref].wish = wish
            if wish == "go":
                self._revive(self.streams[event.ref])
        elif wish == "go":
            self.stopped = False
        else:
            self.stopped = True
        if wish == "go":
            self.end = None

    def _revive(self, stream: Stream) -> None:
        """A failed stream that is resumed gets its attempts back."""
        stream.failed = ""
        for role in ROLES:
            self.tasks[f"{stream.name}/{role}"].failures.clear()

    def _lease(self, entry: Entry, event: Event) -> None:
        task = self.tasks[event.ref]
        match event:
            case ev.Claim(ttl=ttl):
                task.lease = Lease(entry.seq, entry.author, entry.time + ttl)
                task.attempts += 1
            case ev.Renew(ttl=ttl) if task.lease:
                task.lease.until = entry.time + ttl
            case ev.Hand(to=to, ttl=ttl):
                task.lease = Lease(entry.seq, to, entry.time + ttl)
            case ev.Done():
                task.lease, task.done = None, event
            case ev.Drop(why=why, failed=failed):
                task.lease = None
                if failed:
                    task.failures.append(why or "failed")
            case ev.Expire(why=why, failed=failed):
                task.lease = None
                if failed:
                    task.failures.append(why)
            case _:
                raise AssertionError(event)

    @staticmethod
    def _hand_over(stream: Stream, event: Event) -> None:
        match event:
            case ev.Prepared():
                stream.prepared = event
            case ev.Checkpoint():
                stream.checkpoints.append(event)
            case ev.Trained():
                stream.trained = event
            case ev.Verdict():
                stream.verdict = event
            case ev.Score():
                stream.score = event
            case ev.Adapter():
                stream.adapter = event
            case _:
                raise AssertionError(event)

    # ---- questions ---------------------------------------------------------------------------------------------------

    def next_role(self, stream: Stream) -> Role | None:
        """The role whose turn it is; None when all are done."""
        return next((role for role in ROLES if self.tasks[f"{stream.name}/{role}"].done is None), None)

    def ready(self) -> list[Task]:
        """Tasks that may be claimed now, streams in the order of the config."""
        if self.stopped or self.end:
            return []
        tasks = []
        for stream in self.streams.values():
            role = self.next_role(stream)
            if role and stream.wish == "go" and not stream.failed:
                task = self.tasks[f"{stream.name}/{role}"]
                if task.lease is None:
                    tasks.append(task)
        return tasks + [t for t in self.tasks.values() if t.role is None and not t.done and not t.lease]

    def repeat_of(self, author: str, event: Event) -> int | None:
        """The seq of the entry that this event only repeats: same idempotency key, or a claim of what one holds."""
        if event.idem and (author, event.idem) in self.idems:
            return self.idems[author, event.idem]
        task = self.tasks.get(event.ref)
        if isinstance(event, ev.Claim) and task and task.lease and task.lease.by == author:
            return task.lease.token
        return None

    def held(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.lease]


def fold(entries: Iterable[Entry]) -> State:
    """The state after these entries, from nothing."""
    state = State()
    for entry in entries:
        state.apply(entry)
    return state


# ---- what may come next ----------------------------------------------------------------------------------------------

COORDINATORS_OWN = frozenset({"run", "stream", "fail", "end", "expire", "refuse", "adapter", "seal", "head"})
"""Kinds that nobody else may append."""

RESULTS = frozenset({"done", "drop", "prepared", "checkpoint", "trained", "verdict", "score"})

MAY_APPEND: dict[str, frozenset[str]] = {
    "viewer": frozenset(),
    "worker": RESULTS | {"post"},
    "agent": frozenset(ev.KINDS) - COORDINATORS_OWN - {"promote"},
    "admin": frozenset(ev.KINDS) - COORDINATORS_OWN,
}
"""Which kinds a member may append, by its role on the bus."""


def admit(state: State, author: str, event: Event, now: float) -> None:
    """Raise Refusal unless `event` by `author` may be the next entry; the check is made under the log's lock."""
    if event.kind in {"pause", "resume", "stop", "fail"} and event.ref != "run" and event.ref not in state.streams:
        raise Refusal(f"{event.ref}: no such stream; there is {', '.join(state.streams) or 'none'}")
    match event:
        case ev.Claim():
            _admit_claim(state, event, now)
        case ev.Task(ref=ref) if ref in state.tasks:
            raise Refusal(f"{ref}: there is a task of that name; take another name")
        case ev.Pause(ref=name) | ev.Stop(ref=name) if name != "run":
            _admit_steering(state, state.streams[name])
        case ev.Stop() if state.end:
            raise Refusal("the run has ended already; nothing is left to stop")
        case ev.Promote(ref=name):
            if name not in state.streams or state.streams[name].adapter is None:
                raise Refusal(f"{name}: has no validated adapter to promote")
        case ev.Renew() | ev.Hand() | ev.Done() | ev.Drop():
            _admit_holder(state, author, event.ref, event.tok)
        case ev.Prepared() | ev.Checkpoint() | ev.Trained() | ev.Verdict() | ev.Score():
            _admit_holder(state, author, event.ref, event.tok)
        case _:
            pass


def _admit_claim(state: State, event: ev.Claim, now: float) -> None:
    task = state.tasks.get(event.ref)
    if task is None:
        raise Refusal(f"{event.ref}: no such task; `swarm status` lists them")
    if task.done:
        raise Refusal(f"{event.ref}: is done already")
    if task.lease:
        left = max(0.0, task.lease.until - now)
        raise Refusal(
            f"{event.ref}: held by {task.lease.by} (token {task.lease.token}) for {left:.0f} s; wait or ask with `swarm post`"
        )
    if task not in state.ready():
        raise Refusal(
            f"{event.ref}: its turn has not come; an earlier task of the stream is open, or it is paused or stopped"
        )


def _admit_steering(state: State, stream: Stream) -> None:
    if stream.failed:
        raise Refusal(f"{stream.name}: has failed ({stream.failed}); `swarm resume` tries it again")
    if state.next_role(stream) is None:
        raise Refusal(f"{stream.name}: is finished; nothing is left to stop or pause")


def _admit_holder(state: State, author: str, ref: str, token: int) -> None:
    task = state.tasks.get(ref)
    lease = task.lease if task else None
    if lease is None or lease.token != token:
        current = f"token {lease.token} holds it" if lease else "nobody holds it"
        raise Refusal(f"{ref}: token {token} is stale, {current}; claim it anew before you report on it")
    if lease.by != author:
        raise Refusal(f"{ref}: token {token} belongs to {lease.by}")
