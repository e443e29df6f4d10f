"""The state of a run is the fold of its log's entries: pure, and the same for every reader.

Coordinator, dashboard, `status`, `replay`, restart after a crash and the tests all fold with it.  It takes any entry that can be read;
one about a task or stream that does not exist changes nothing.  Which entry may come next is decided in `policy/admission.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from swarm import events as ev
from swarm.event import JUDGING, ROLES, Event, Role
from swarm.events import RESULT_OF, RESULTS
from swarm.standing import (
    Decision,
    Lease,
    Opinion,
    Promoters,
    Proposal,
    Question,
    Rated,
    Retrained,
    Stream,
    Task,
    Yielded,
    reason_of,
)

__all__ = [
    "Decision", "Entry", "Lease", "Opinion", "Proposal", "Question", "Rated", "Refusal", "Retrained", "State", "Stream", "Task",
    "Yielded", "fold",
]  # fmt: skip

ResultKey = tuple[str, str, str, int, int | None]
"""Author, kind, ref, token and step of a report."""
DECISIONS = 8
"""How many of the last decisions are kept, for digests."""


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
class State:
    """A run, as far as its log tells it."""

    seq: int = 0
    time: float = 0.0
    run: ev.Run | None = None
    started: float = 0.0
    stopped: bool = False
    """The whole run was asked to stop and not yet to go on."""
    end: ev.End | None = None
    yielded: dict[str, Yielded] = field(default_factory=dict)
    """By kind of device."""
    streams: dict[str, Stream] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    course: list[ev.Checkpoint | ev.Trained] = field(default_factory=list)
    """What all trainings came to, in the order of the log."""
    proposals: dict[str, Proposal] = field(default_factory=dict)
    kept: str = ""
    """The proposal that was kept last."""
    researched: float = 0.0
    """Log time of the last entry about a proposal."""
    ratings: dict[str, Rated] = field(default_factory=dict)
    """By the answer's id, in the order in which they were given."""
    rated: float = 0.0
    """Log time of the last rating."""
    retrained: dict[str, Retrained] = field(default_factory=dict)
    looks: int = 0
    """How often the sealed rows were looked at."""
    compared: ev.Compared | None = None
    """The newest comparison; it holds for the scores that it names."""
    promoted: ev.Promote | None = None
    promoted_seq: int = 0
    promoters: Promoters | None = None
    opinions: dict[tuple[str, str], Opinion] = field(default_factory=dict)
    """(stream or `run`, author) -> the author's newest approval or objection."""
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=DECISIONS))
    questions: dict[int, Question] = field(default_factory=dict)
    """Open questions by the seq of their entry."""
    agents: set[str] = field(default_factory=set)
    """Who ever held a task without being a worker process."""
    idems: dict[tuple[str, str], tuple[int, Event]] = field(default_factory=dict)
    """(author, idempotency key) -> seq and event of its first use"""
    results: dict[ResultKey, tuple[dict[str, object], int]] = field(default_factory=dict)
    """What was reported under tokens, with its seq: by this a report that is sent again is recognised (`policy.repeats`)."""

    def apply(self, entry: Entry) -> None:
        """Fold one entry; entries come in the order of their seq, each once."""
        self.seq, self.time = entry.seq, entry.time
        event = entry.event
        if event.idem:
            self.idems[entry.author, event.idem] = entry.seq, event
        if event.kind in RESULTS:
            self.results[result_key(entry.author, event)] = event.facts(), entry.seq
        self._remember(entry)
        self._keep_leases_of(entry)
        match event:
            case ev.Run():
                self.run, self.started, self.stopped = event, entry.time, False
            case ev.Stream(ref=name):
                self._join(Stream(name, turn_since=entry.time))
            case ev.Add(ref=name):
                joins = Stream(name, added=event, by={event.kind: entry.author}, turn_since=entry.time)
                joins.spared = name in self.retrained
                self._join(joins)
            case ev.Task(ref=ref):
                self.tasks.setdefault(ref, Task(ref))
            case ev.Propose(ref=name):
                self.proposals[name] = Proposal(event, entry.author, entry.seq, entry.time)
                self.researched = entry.time
            case ev.Rate(ref=name, answer=answer, rating=rating, better=better):
                known = self.ratings.pop(answer, None)
                has_better = bool(better or (known and known.has_better))
                self.ratings[answer] = Rated(entry.seq, name, rating, has_better)
                self.rated = entry.time
            case ev.Retrain(ref=name):
                self.retrained[name] = Retrained(event, entry.seq)
            case ev.Canary(ref=name) if name in self.retrained:
                self.retrained[name].canary, self.retrained[name].canary_seq = event, entry.seq
            case ev.Conclude(ref=name) if name in self.retrained:
                self.retrained[name].conclusion, self.retrained[name].concluded_seq = event, entry.seq
            case ev.Conclude(ref=name) if name in self.proposals:
                self.proposals[name].conclusion, self.researched = event, entry.time
                self.kept = name if event.result == "keep" else self.kept
            case ev.Pause() | ev.Resume() | ev.Stop():
                self._steer(entry.author, event)
            case ev.Yield(what=what, count=count, seconds=seconds):
                self.yielded[what] = Yielded(count, None if seconds is None else entry.time + seconds)
            case ev.End():
                self.end = event
                self.yielded.clear()
            case ev.Extend(seconds=seconds):
                self._extend(seconds)
            case ev.Look(ref=name, number=number):
                self.looks = number
                self.tasks[f"{name}/sealed"] = Task(f"{name}/sealed", "sealed")
            case ev.Compared():
                self.compared = event
            case ev.Promote():
                self.promoted, self.promoted_seq = event, entry.seq
                self.promoters = Promoters(
                    entry.author, self.approvers(event.ref), self.objections(event.ref), self.reasons(event.ref)
                )
            case ev.Approve() | ev.Object():
                self._take_answer(entry.author, event.of)
                self._take_opinion(entry, event)
            case ev.Claim() | ev.Renew() | ev.Hand() | ev.Done() | ev.Drop() | ev.Expire():
                if task := self.tasks.get(event.ref):
                    _lease(task, entry, event)
                    if isinstance(event, ev.Claim | ev.Hand) and task.role == "train" and task.lease:
                        self.streams[event.stream].train_leases.append(task.lease)
                if isinstance(event, ev.Done) and (stream := self.streams.get(event.stream)):
                    stream.turn_since = entry.time
            case ev.Prepared() | ev.Trained() | ev.Verdict() | ev.Score() | ev.Sealed() if stream := self.streams.get(
                event.stream
            ):
                self._take_result(stream, event)
                self._record(stream, entry)
            case ev.Post(asks=asked, of=answered):
                self._take_answer(entry.author, answered)
                if asked:
                    self.questions[entry.seq] = Question(entry.author, tuple(asked.split(",")), event.ref)
            case _ if stream := self.streams.get(event.stream):
                self._record(stream, entry)
            case _:  # amendments, seals and heads are for readers
                pass

    def _take_answer(self, author: str, of: int | None) -> None:
        if question := self.questions.pop(of or 0, None):
            left = question.after(author)
            self.questions |= {of: left} if of and left else {}

    def _join(self, stream: Stream) -> None:
        self.streams[stream.name] = stream
        self.tasks.update({f"{stream.name}/{role}": Task(f"{stream.name}/{role}", role) for role in ROLES})

    def _keep_leases_of(self, entry: Entry) -> None:
        """Whatever an agent writes shows that it is at work: the leases that it still has last on from there."""
        match entry.event:
            case ev.Claim(beats=None):
                self.agents.add(entry.author)
            case ev.Hand(to=to):
                self.agents.add(to)
            case _:
                pass
        for task in self.tasks.values() if entry.author in self.agents else ():
            lease = task.lease
            if lease and lease.worker is None and lease.by == entry.author and entry.time < lease.until:
                lease.until = max(lease.until, until(entry, lease.ttl))

    def _extend(self, seconds: float) -> None:
        for task in self.held():
            assert task.lease
            task.lease.until += seconds
            task.lease.began += seconds
        for stream in self.streams.values():
            stream.turn_since += seconds

    def _steer(self, author: str, event: ev.Pause | ev.Resume | ev.Stop) -> None:
        wish = {"pause": "pause", "resume": "go", "stop": "stop"}[event.kind]
        if event.ref == "run":
            self.stopped = wish == "stop" or (self.stopped and wish != "go")
        elif stream := self.streams.get(event.ref):
            stream.spared = stream.spared or (stream.wish == "stop" and wish == "go")
            stream.wish, stream.by[event.kind] = wish, author
            if wish == "go":
                self._revive(stream)
        if wish == "go":
            self.end = None
            for stream in self.streams.values():
                if event.ref in {"run", stream.name}:
                    stream.turn_since = self.time

    def _revive(self, stream: Stream) -> None:
        """A failed stream that is resumed gets its attempts back, and what it trained is judged anew."""
        stream.failed = ""
        for role in ROLES:
            task = self.tasks[f"{stream.name}/{role}"]
            task.alone = task.hopeless = False
            task.failures.clear()
        if stream.verdict and stream.verdict.result == "FAIL":
            stream.back, stream.rejected = None, []
            self._judge_again(stream)

    def _judge_again(self, stream: Stream) -> None:
        stream.verdict = stream.score = None
        self.tasks.update({f"{stream.name}/{role}": Task(f"{stream.name}/{role}", role) for role in JUDGING})

    def _take_opinion(self, entry: Entry, event: ev.Approve | ev.Object) -> None:
        scope = event.stream
        if scope == "-":
            return  # about an entry, not about anything that is promoted
        agrees, why = not isinstance(event, ev.Object), event.why or ""
        person = isinstance(event, ev.Approve) and bool(event.person)
        if agrees and event.of:  # agreeing with an entry takes an objection back; it approves no promotion
            if (known := self.opinions.get((scope, entry.author))) and not known.agrees:
                del self.opinions[scope, entry.author]
            return
        if scope == "run" and agrees:  # an approval of the whole run takes back all objections of its author
            self.opinions = {key: o for key, o in self.opinions.items() if o.agrees or key[1] != entry.author}
        self.opinions[scope, entry.author] = Opinion(entry.seq, agrees, why, person)

    def _take_result(self, stream: Stream, event: ev.Prepared | ev.Trained | ev.Verdict | ev.Score | ev.Sealed) -> None:
        """A result finishes its task and ends the lease."""
        task = self.tasks.get(event.ref)
        if task and task.role and RESULT_OF[task.role] == event.kind:
            task.lease, task.done = None, event
            stream.turn_since = self.time

    def _record(self, stream: Stream, entry: Entry) -> None:
        stream.by[entry.event.kind] = entry.author
        match entry.event:
            case ev.Fail() as event:
                stream.failed = event.why
            case ev.Prepared() as event:
                stream.prepared = event
            case ev.Checkpoint() as event:
                stream.checkpoints.append(event)
                self.course.append(event)
            case ev.Trained() as event:
                self.course.append(event)
                stream.trained, stream.back, stream.rejected = event, None, []
                if all(saved.path != event.path for saved in stream.checkpoints):
                    stream.checkpoints.append(event.as_checkpoint())
            case ev.Verdict() as event:
                stream.verdict = event
            case ev.Back() as event:
                if stream.candidate:
                    stream.rejected.append(stream.candidate.path)
                stream.back = event
                self._judge_again(stream)
            case ev.Score() as event:
                stream.score = event
            case ev.Sealed() as event:
                stream.sealed = event
            case ev.Adapter() as event:
                stream.adapter, stream.adapter_seq = event, entry.seq
            case _:
                pass

    def _remember(self, entry: Entry) -> None:
        why = reason_of(entry.event)
        if why is not None:
            self.decisions.append(Decision(entry.seq, entry.event.kind, entry.event.ref, entry.author, why))

    @property
    def added(self) -> list[ev.Add]:
        """The streams that joined while the run was running, in the order in which they did."""
        return [stream.added for stream in self.streams.values() if stream.added]

    # ---- questions ---------------------------------------------------------------------------------------------------

    @property
    def at_rest(self) -> str:
        """Why nothing can join now, and what to do; empty: the run goes on."""
        if self.run is None:
            return "no run was started here yet; `swarm run CONFIG --in RUN` does"
        if self.end and self.end.rc == 0:
            return "the run has finished, and streams join a running one; `swarm run CONFIG` starts another"
        word = "has ended" if self.end else "is stopped" if self.stopped else ""
        return word and f"the run {word}, and streams join a running one; `swarm resume` first"

    def next_role(self, stream: Stream) -> Role | None:
        """The role whose turn it is; None when all are done."""
        return next((role for role in ROLES if self.tasks[f"{stream.name}/{role}"].done is None), None)

    def ready(self) -> list[Task]:
        """Tasks that may be claimed now, streams in the order of the config; tasks that agents made also after the end."""
        if self.stopped and not self.end:
            return []
        tasks = []
        for stream in self.streams.values() if not self.end else ():
            role = self.next_role(stream)
            if role and stream.wish == "go" and not stream.failed:
                task = self.tasks[f"{stream.name}/{role}"]
                if task.lease is None:
                    tasks.append(task)
            looked = self.tasks.get(f"{stream.name}/sealed")
            if looked and not looked.done and looked.lease is None and not stream.failed:
                tasks.append(looked)
        return tasks + [t for t in self.tasks.values() if t.role is None and not t.done and not t.lease]

    def open_streams(self) -> list[Stream]:
        """Those for which something is still to be done."""
        return [s for s in self.streams.values() if not s.over and self.next_role(s) is not None]

    def holds(self, worker: str, ref: str, token: int) -> bool:
        """Whether this worker process does the task, under a lease that `token` belongs to."""
        lease = task.lease if (task := self.tasks.get(ref)) else None
        return lease is not None and lease.worker == worker and lease.first <= token <= lease.token

    def held_by(self, worker: str) -> list[Task]:
        """The tasks that this worker process does."""
        return [task for task in self.held() if task.lease and task.lease.worker == worker]

    def held(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.lease]

    def approvers(self, stream: str) -> list[str]:
        """Who approves its promotion; only approvals newer than the published adapter count, since earlier ones were of other weights."""
        since = found.adapter_seq if (found := self.streams.get(stream)) else 0
        return [
            by
            for (scope, by), opinion in self.opinions.items()
            if opinion.agrees and scope in {stream, "run"} and opinion.seq > since
        ]

    def reasons(self, stream: str) -> list[tuple[str, str]]:
        """(who, why) of the approvals that count."""
        found = {by: o.why for (scope, by), o in self.opinions.items() if o.agrees and scope in {stream, "run"}}
        return [(by, found[by]) for by in self.approvers(stream)]

    def objections_to(self, proposal: str) -> list[tuple[str, str]]:
        """(who, why): it does not join while there is one."""
        return [(by, o.why) for (scope, by), o in self.opinions.items() if not o.agrees and scope == proposal]

    def objections(self, stream: str) -> list[tuple[str, str]]:
        """(who, why): its promotion waits while there is one."""
        return [(by, o.why) for (scope, by), o in self.opinions.items() if not o.agrees and scope in {stream, "run"}]


def result_key(author: str, event: Event) -> ResultKey:
    return author, event.kind, event.ref, getattr(event, "tok", 0), getattr(event, "step", None)


def _lease(task: Task, entry: Entry, event: Event) -> None:
    match event:
        case ev.Claim(ttl=ttl, beats=beats):
            worker = entry.author if beats else None
            task.lease = Lease(
                entry.seq, entry.author, until(entry, ttl), entry.time, entry.seq, worker=worker, ttl=ttl
            )
            task.attempts += 1
            task.done = None  # a log of before results ended leases may hold a result, an expiry and the next attempt
        case ev.Renew(ttl=ttl) if task.lease:
            task.lease.until, task.lease.ttl = until(entry, ttl), ttl
        case ev.Hand(to=to, ttl=ttl) if task.lease:
            old = task.lease
            ends = until(entry, ttl)
            task.lease = Lease(entry.seq, to, ends, old.began, old.first, old.token, entry.author, old.worker, ttl)
        case ev.Done() if task.role is None or task.done is None:
            task.lease, task.done = None, event
        case ev.Drop(why=why, failed=failed, worked=worked) | ev.Expire(why=why, failed=failed, worked=worked):
            if task.lease is None:
                return  # a log of before results ended leases: the result stands
            if worked is not None:
                task.seconds += worked
            elif failed or isinstance(event, ev.Drop):
                task.seconds += entry.time - task.lease.began
            task.lease = None
            task.alone = task.alone or (isinstance(event, ev.Expire) and (event.held or 1) > 1)
            if failed:
                task.failures.append(why or "failed")
                task.hopeless = isinstance(event, ev.Drop) and event.retry is False
        case _:
            pass


def until(entry: Entry, ttl_seconds: float) -> float:
    """When a lease is over.  Log times are whole seconds, cut: it lasts up to a second less than was asked for, and never longer."""
    return entry.time + ttl_seconds


def fold(entries: Iterable[Entry]) -> State:
    """The state after these entries, from nothing."""
    state = State()
    for entry in entries:
        state.apply(entry)
    return state
