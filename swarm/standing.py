"""The parts of a run's state: leases, tasks, streams, opinions, decisions, open questions; only data.

`State` folds them from the log; nothing else changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from swarm import events as ev
from swarm.event import RESERVED, Event, Role


@dataclass(slots=True)
class Lease:
    """Who owns a task, and under which token its results are accepted."""

    token: int
    by: str
    until: float
    """Log time at which it ends unless renewed; a worker's is kept by heartbeats, and this is not looked at."""
    began: float = 0.0
    """Log time of the claim; hand-overs do not change it."""
    first: int = 0
    """The token of the claim; after a hand-over `token` differs."""
    was: int = 0
    """The token before the last hand-over."""
    handed_by: str = ""
    """Who handed it over."""
    worker: str | None = None
    """The worker process that does the task and reports, whoever owns the lease; None: the owner does it."""
    ttl: float = 0.0
    """For how many seconds it was last claimed, renewed or handed over: so long it lasts after each act of its owner."""

    def overdue(self, now: float) -> bool:
        return self.worker is None and now >= self.until


@dataclass(slots=True)
class Task:
    """One role's work on one stream, or work that an agent added."""

    ref: str
    role: Role | None = None
    lease: Lease | None = None
    done: ev.Done | ev.Prepared | ev.Trained | ev.Verdict | ev.Score | ev.Sealed | None = None
    """What finished it: a stream's task its result, an agent's own task a `done`."""
    failures: list[str] = field(default_factory=list)
    """Why earlier attempts failed."""
    hopeless: bool = False
    """The last failure is sure to come again."""
    attempts: int = 0
    seconds: float = 0.0
    """How long it was worked on under leases that are over: as their ends state it, else how long it was held, and no time where
    the lease ended through no fault of its holder."""
    alone: bool = False
    """Its worker was lost while it held other tasks too: it is given to a worker that holds nothing else."""

    def given_up(self, retries: int) -> bool:
        """Whether it has failed and is not tried again."""
        return self.hopeless or len(self.failures) > retries


@dataclass(slots=True)
class Stream:
    """One fine-tune and what its roles have reported."""

    name: str
    added: ev.Add | None = None
    """How it joined the run while it was running; None: the config names it."""
    wish: str = "go"
    """go, pause or stop: what was last asked for it."""
    spared: bool = False
    """It was stopped and somebody resumed it, or it is trained anew from ratings: early exit leaves it alone."""
    failed: str = ""
    prepared: ev.Prepared | None = None
    checkpoints: list[ev.Checkpoint] = field(default_factory=list)
    """In the order in which they were reported; the newest is the last."""
    train_leases: list[Lease] = field(default_factory=list)
    """Every lease of its training, as it began."""
    trained: ev.Trained | None = None
    back: ev.Back | None = None
    """The earlier checkpoint that takes the place of what was trained."""
    rejected: list[str] = field(default_factory=list)
    """Paths of checkpoints that failed validation."""
    verdict: ev.Verdict | None = None
    score: ev.Score | None = None
    sealed: ev.Sealed | None = None
    """What came of the newest look at the sealed rows."""
    adapter: ev.Adapter | None = None
    adapter_seq: int = 0
    """The entry that published it; earlier approvals were of other weights."""
    by: dict[str, str] = field(default_factory=dict)
    """Author of the newest event of each kind."""
    turn_since: float = 0.0
    """Log time at which its next task became ready; from there a task waits for its agents."""

    @property
    def over(self) -> bool:
        """It has failed or was stopped: nothing more is done for it unless it is resumed."""
        return bool(self.failed) or self.wish == "stop"

    @property
    def gave_way(self) -> bool:
        """The coordinator stopped it (early exit, budget, a standstill): it stays so where the whole run is resumed."""
        return self.wish == "stop" and self.by.get("stop") in RESERVED

    @property
    def candidate(self) -> ev.Trained | ev.Back | None:
        """What is judged, published and scored: the end of the training, or what the stream went back to."""
        return self.back or self.trained

    def trained_by(self, name: str) -> bool:
        """Whether that agent trained it, or owned the lease of its training, in any attempt."""
        return any(lease.by == name for lease in self.train_leases)

    def may_go_on_from(self, token: int, path: str) -> bool:
        """Whether a training may be resumed from a whole checkpoint that lies in the folder of a token.

        A worker process that falls silent is killed.  An agent cannot be killed and may still write after its lease ended, so that
        only the checkpoints count which it reported in time.
        """
        agents = {lease.token for lease in self.train_leases if lease.worker is None}
        return token not in agents or any(c.path == path for c in self.checkpoints)

    @property
    def figures(self) -> dict[str, float]:
        """What was measured of it, the bare base's as `base_<name>`; what a judge states comes before what the trainer stated."""
        found = (self.trained, self.verdict, self.score, self.examined)
        return {name: value for event in found if event for name, value in event.figures.items()}

    @property
    def examined(self) -> ev.Sealed | None:
        """What came of the look at the sealed rows, if it was at the weights that are published now."""
        same = self.sealed and self.adapter and self.sealed.sha256 == self.adapter.sha256
        return self.sealed if same else None

    def figures_of(self, path: str) -> dict[str, float]:
        """What its maker stated for a checkpoint."""
        return next((c.figures for c in reversed(self.checkpoints) if c.path == path), {})

    def earlier(self) -> list[ev.Checkpoint]:
        """Checkpoints before the candidate that nobody has rejected, newest first."""
        if self.candidate is None:
            return []
        known = {c.path: c for c in self.checkpoints}
        gone = {*self.rejected, self.candidate.path}
        found = [c for c in known.values() if c.path not in gone and c.sha256 != self.candidate.sha256]
        return sorted((c for c in found if c.step < self.candidate.step), key=lambda c: (c.step, c.tok), reverse=True)


@dataclass(slots=True)
class Proposal:
    """A trial that was proposed; once it is admitted there is a stream of its name."""

    event: ev.Propose
    by: str
    seq: int
    time: float
    conclusion: ev.Conclude | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """The newest rating of an answer."""

    seq: int
    stream: str
    rating: float
    has_better: bool
    """Somebody wrote what the answer should have been."""


@dataclass(slots=True)
class Retrained:
    """A stream that is trained anew from rated answers."""

    event: ev.Retrain
    seq: int
    canary: ev.Canary | None = None
    canary_seq: int = 0
    conclusion: ev.Conclude | None = None
    concluded_seq: int = 0


@dataclass(frozen=True, slots=True)
class Opinion:
    """An approval or an objection."""

    seq: int
    agrees: bool
    why: str = ""
    person: bool = False
    """Given by the run's owner or an admin."""


@dataclass(frozen=True, slots=True)
class Promoters:
    """Who promoted, who approved and who objected, when the promotion was made."""

    by: str
    approved: list[str]
    objections: list[tuple[str, str]]
    reasons: list[tuple[str, str]] = field(default_factory=list)
    """(who, why) of the approvals."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of the run, for digests."""

    seq: int
    kind: str
    ref: str
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Yielded:
    """Devices of one kind that are for others."""

    count: int
    until: float | None
    """Log time; None: until an entry takes them back."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question from one agent to others that is not answered yet."""

    by: str
    to: tuple[str, ...]
    """Who has still to answer."""
    ref: str

    def after(self, author: str) -> Question | None:
        """What is open of it after this author's answer: one word of the asker, or of anybody where one is asked, closes it."""
        left = tuple(name for name in self.to if name != author)
        return None if not left or author == self.by or len(self.to) == 1 else replace(self, to=left)


def reason_of(event: Event) -> str | None:
    """Why something was decided; None: the event is no decision."""
    match event:
        case ev.Fail(why=why) | ev.Back(why=why) | ev.Object(why=why) | ev.Promote(why=why):
            return why
        case ev.Add(like=like, why=reason):
            return f"like {like}: {reason}" if reason else f"like {like}"
        case ev.Retrain(like=like, mean=mean, ratings=count):
            return f"the last {count} ratings of {like} have the mean {mean:g}"
        case ev.Canary(share=share):
            return f"{share:g} of the requests"
        case ev.Verdict(result=result, why=reason):
            return f"{result}: {reason}" if reason else result
        case ev.Conclude(result=result, why=reason):
            return f"{result}: {reason}"
        case ev.Stop(why=reason):
            return reason or ""
        case ev.Yield(what=what, count=count, why=reason):
            return f"{what}={count}: {reason}" if reason else f"{what}={count}"
        case ev.Approve(why=reason):
            return reason or ""
        case ev.Pause() | ev.Resume():
            return ""
        case ev.End(rc=rc):
            return f"exit status {rc}"
        case _:
            return None
