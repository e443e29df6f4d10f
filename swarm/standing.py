"""What stands of a run between two entries: leases, tasks, streams, opinions, decisions, open questions; only data.

`State` folds them from the log and hands them out; nothing else changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from swarm import events as ev
from swarm.events import Role


@dataclass(slots=True)
class Lease:
    """Who answers for a task, and under which token its results are taken."""

    token: int
    by: str
    until: float
    """Log time at which it ends unless renewed; heartbeats keep a worker's, whatever this says."""
    began: float = 0.0
    """Log time of the claim; hand-overs do not change it."""
    first: int = 0
    """The claim's token; `token` is another after a hand-over."""
    was: int = 0
    """The token before the last hand-over."""
    handed_by: str = ""
    """Who handed it over."""
    worker: str | None = None
    """The process that does the work and reports, whoever answers for it; None: `by` does it."""

    def overdue(self, now: float) -> bool:
        return self.worker is None and now >= self.until


@dataclass(slots=True)
class Task:
    """One role's work on one stream, or work that an agent added."""

    ref: str
    role: Role | None = None
    lease: Lease | None = None
    done: ev.Done | ev.Prepared | ev.Trained | ev.Verdict | ev.Score | None = None
    """What finished it: a stream's task its result, an agent's own task a `done`."""
    failures: list[str] = field(default_factory=list)
    """Why earlier attempts failed."""
    attempts: int = 0
    seconds: float = 0.0
    """How long it was worked on under leases that are over: as their ends state it, else how long it was held, and no time where
    the lease ended through no fault of its holder."""
    alone: bool = False
    """Its worker was lost while it held other tasks too: it is given to a worker that holds nothing else."""


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
    train_leases: list[Lease] = field(default_factory=list)
    """Every lease of its training, as it began."""
    trained: ev.Trained | None = None
    back: ev.Back | None = None
    """The earlier checkpoint that takes the place of what was trained."""
    rejected: list[str] = field(default_factory=list)
    """Paths of checkpoints that will not do."""
    verdict: ev.Verdict | None = None
    score: ev.Score | None = None
    adapter: ev.Adapter | None = None
    adapter_seq: int = 0
    """The entry that published it: who approved before approved other weights."""
    by: dict[str, str] = field(default_factory=dict)
    """Who handed over the newest event of a kind."""
    turn_since: float = 0.0
    """Log time since which its present role is due: how long a task has waited for an agent."""

    @property
    def over(self) -> bool:
        """Nothing more will be done for it as things stand."""
        return bool(self.failed) or self.wish == "stop"

    @property
    def candidate(self) -> ev.Trained | ev.Back | None:
        """What is judged, published and scored: the end of the training, or what the stream went back to."""
        return self.back or self.trained

    def trained_by(self, name: str) -> bool:
        """Whether that agent trained it, or answered for its training, in any attempt."""
        return any(lease.by == name for lease in self.train_leases)

    def may_go_on_from(self, token: int, path: str) -> bool:
        """Whether a training may be resumed from a whole checkpoint that lies in the folder of a token.

        A worker process that falls silent is killed; an agent may write on when its lease is over, so that of its checkpoints
        only those count that it reported in time.
        """
        agents = {lease.token for lease in self.train_leases if lease.worker is None}
        return token not in agents or any(c.path == path for c in self.checkpoints)

    @property
    def figures(self) -> dict[str, float]:
        """What was measured of it, the bare base's as `base_<name>`; what a judge states comes before what the trainer stated."""
        found = (self.trained, self.verdict, self.score)
        return {name: value for event in found if event for name, value in event.figures.items()}

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


@dataclass(frozen=True, slots=True)
class Opinion:
    """An approval or an objection."""

    seq: int
    agrees: bool
    why: str = ""
    person: bool = False
    """Said by the run's owner or an admin."""


@dataclass(frozen=True, slots=True)
class Promoters:
    """Who had a word in a promotion when it was made."""

    by: str
    approved: list[str]
    objections: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that was settled, for readers in a hurry."""

    seq: int
    kind: str
    ref: str
    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Question:
    """What an agent asked another and nobody has answered yet."""

    by: str
    to: str
    ref: str
