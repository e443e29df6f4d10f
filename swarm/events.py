"""What can happen in a run: the closed list of event classes; an entry of the log is one of these, signed and numbered.

An event's class name in lower case is the entry's kind.  Every field except `ref` and `body` is a `k=v` of the entry
and may be folded into state; `body` is Markdown for readers and is never folded.
A new event is one class here and its line in `swarm/state.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from swarm.event import (
    Count,
    Event,
    ExitStatus,
    Measured,
    Name,
    Names,
    RelativePath,
    Role,
    Seconds,
    Sha256,
    ShortSha256,
    Token,
)
from swarm.figures import is_compared

# ---- the run and its streams -----------------------------------------------------------------------------------------


class Run(Event):
    """A run began; `ref` is `run`."""

    name: Name
    config_sha256: Sha256
    streams: Count
    sealed: bool | None = None
    """True: who is to be promoted is examined on sealed rows first, so validators are needed up to the end."""


class Stream(Event):
    """A stream belongs to the run from here on; its tasks follow from `ROLES`."""


class Add(Event):
    """A new stream, `ref`, joins a running run with the settings of `like`, but for `changes`; its tasks follow from `ROLES`."""

    like: Name
    changes: str | None = None
    """`key=value` words as a shell reads them, paths absolute; unset: it differs in nothing."""
    warm: bool | None = None
    """True: it starts with weights and moments of the newest checkpoint of `like`, which stands under `path` for it."""
    step: Count | None = None
    """Of that checkpoint; it and the next two are set when the entry is admitted."""
    path: RelativePath | None = None
    sha256: Sha256 | None = None
    why: str | None = None


class Propose(Event):
    """A trial that an agent proposes, `ref`: the settings of `like` but for `changes`; it joins as a stream if it is admitted."""

    like: Name
    changes: str
    """`key=value` words as a shell reads them, paths absolute."""
    why: str
    """The hypothesis."""
    refute: str | None = None
    """What would show that it is wrong."""
    phase: Name | None = None
    """Set when the entry is admitted."""


class Conclude(Event):
    """What became of `ref`: a proposal, or a stream that was trained anew from rated answers."""

    result: Literal["keep", "discard", "replica"]
    """replica: it differs from the best so far in its seed alone, so it measures the spread and is no progress."""
    against: Name | None = None
    """With what it was compared: the best so far, row by row; or what was promoted, by ratings."""
    better: float | None = None
    """By so much (worse where negative), in the metric of the promotion or in points of the ratings."""
    low: float | None = None
    high: float | None = None
    """The interval at the level of the test."""
    p: float | None = None
    """How likely chance alone makes such a difference."""
    why: str


class Rate(Event):
    """An answer of the stream `ref` was rated; its text stands in `feedback/` of the run folder and not here."""

    answer: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    """The id under which it was given; a second rating takes the place of the first."""
    rating: Annotated[float, Field(ge=1, le=5)]
    """1, the worst, to 5."""
    better: bool | None = None
    """True: somebody wrote what the answer should have been."""
    why: str | None = None


class Retrain(Event):
    """The ratings of `like` are low: a stream `ref` is to be trained as it was, with the rated answers among its rows."""

    like: Name
    mean: float
    ratings: Count
    """So many, of which that is the mean."""


class Canary(Event):
    """The stream gets a share of the requests, until as many of its answers are rated as are needed to judge it."""

    share: Annotated[float, Field(gt=0, lt=1)]


class Pause(Event):
    """The stream's trainer waits at its next step boundary."""


class Resume(Event):
    """A paused or stopped stream (or `run`) goes on."""


class Stop(Event):
    """The stream (or `run`) saves a checkpoint and ends."""

    why: str | None = None


class Fail(Event):
    """A stream is given up; the others go on."""

    why: str


class Yield(Event):
    """So many of the run's devices are for others from the next step boundaries on; the newest of each kind counts, and 0 takes them back."""

    what: Literal["gpus", "cores"]
    count: Annotated[int, Field(ge=0, lt=1 << 16)]
    seconds: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None
    """After so long they come back by themselves; unset: until another entry takes them back, or the run ends."""
    why: str | None = None


class End(Event):
    """The run is over; `rc` is the exit status that `swarm run` gives."""

    rc: ExitStatus


# ---- leases ----------------------------------------------------------------------------------------------------------


class Task(Event):
    """A task that an agent added beside the streams' own."""

    title: str | None = None


class Claim(Event):
    """The author holds the task; the token is this entry's seq."""

    ttl: float
    """Seconds of lease."""
    beats: bool | None = None
    """True for a worker process: its heartbeats renew the lease, and `ttl` is its heartbeat timeout, seconds."""


class Renew(Event):
    """The holder keeps its lease for `ttl` seconds more (agents only: workers' heartbeats renew in memory)."""

    tok: Token
    ttl: float


class Hand(Event):
    """The lease is transferred to `to`; the new token is this entry's seq.

    A worker process that does the work continues and reports under the new token.
    """

    tok: Token
    to: Name
    ttl: float


class Done(Event):
    """An agent's own task is finished and its lease over; a stream's task is finished by its result."""

    tok: Token
    path: RelativePath | None = None
    sha256: Sha256 | None = None
    rc: ExitStatus = 0
    cmd: str | None = None
    """The command that backs this, with exit status `rc`; what it printed is the body."""


class Drop(Event):
    """The holder gives the task back: unfinished, or failed with a reason."""

    tok: Token
    why: str | None = None
    failed: bool = False
    """True counts against the task's retries; a stop or a pause does not."""
    retry: bool | None = None
    """False: what failed is sure to fail again (a mistake in the config or the data), so that the task is not tried again."""
    worked: Seconds | None = None
    """Seconds that the holder worked on it; unset: as long as it held it."""


class Expire(Event):
    """The coordinator ends a lease whose holder died or sent no heartbeat in time."""

    tok: Token
    why: str
    failed: bool = True
    """False where the task is not to blame: a coordinator restarted."""
    held: Count | None = None
    """How many tasks the worker held when it was lost, if more than one: none is blamed, and each is tried again alone."""
    worked: Seconds | None = None
    """Seconds that the holder worked on it, as far as its last heartbeat told; unset: as long as it held it."""


class Extend(Event):
    """Every lease, and every wait for an agent, lasts `seconds` longer: no time passed for its holder; `ref` is `run`."""

    seconds: Annotated[float, Field(gt=0)]
    why: str


class Refuse(Event):
    """A report with a stale token was not applied."""

    tok: Token | None = None
    by: Name
    why: str


# ---- results: what the roles report; each but a checkpoint finishes its task and ends the lease --------------------


class Prepared(Event):
    """The stream's rows are tokenised and shared under `path`."""

    tok: Token
    path: RelativePath
    sha256: Sha256
    """Of the manifest: equal data, equal hash."""
    rows: Count
    held_out: Count
    """Rows kept for validation and evaluation."""
    bad: Count = 0
    """Malformed rows that were set aside."""
    tokens: Count = 0
    supervised: Count = 0
    """Tokens that the loss counts."""
    cut: Count = 0
    """Rows longer than `sequence_len`."""
    cmd: str | None = None
    """The command that backs this."""


CHECKPOINT_PATH = "streams/{stream}/t{tok}/checkpoint-{step}"
"""Where `swarm.rundir` has the checkpoints of a lease."""


class Checkpoint(Measured):
    """A whole checkpoint stands under `path`.

    `tok` is that of the lease which reports it; the folder bears an older one where the lease changed hands during the save.
    """

    implied: ClassVar[Mapping[str, str]] = {"path": CHECKPOINT_PATH}

    tok: Token
    step: Count
    path: RelativePath
    sha256: Sha256
    """Of the adapter's two files (`weights.adapter_sha256`), here and in all that follows."""


class Trained(Measured):
    """Training ended at `step`; the figures of the whole training: first and last loss, seconds, tokens_per_second, peak_bytes."""

    implied: ClassVar[Mapping[str, str]] = {"path": CHECKPOINT_PATH}

    tok: Token
    step: Count
    path: RelativePath
    sha256: Sha256
    trainable: Count
    """Trainable parameters."""
    why: str | None = None
    """What ended it: max_steps, max_minutes, stop, ..."""
    base_sha256: ShortSha256 | None = None
    """Of the base's weights that it was trained on: the hash of the list of its files' hashes, as `sha256sum` prints it."""
    start_sha256: ShortSha256 | None = None
    """Of the adapter on which it began (`start_adapter`), which its own file holds too; None: on the base."""
    versions: str | None = None
    """Of the packages that decide what comes out: `torch 2.13.0, peft 0.21.0, ...`."""
    cmd: str | None = None
    """The command that backs this."""

    def as_checkpoint(self) -> Checkpoint:
        """What it hands over; the checkpoint with which a training ends has no entry of its own."""
        compared = {name: value for name, value in self.figures.items() if is_compared(name)}
        return Checkpoint(
            ref=self.ref, tok=self.tok, step=self.step, path=self.path, sha256=self.sha256, figures=compared
        )


class Verdict(Measured):
    """The validator's answer on a checkpoint, with its own figures; one that is no FAIL states eval_loss and base_eval_loss."""

    tok: Token
    result: Literal["SUCCESS", "WARNING", "FAIL"]
    path: RelativePath
    sha256: Sha256
    why: str | None = None
    cmd: str | None = None
    """The command that backs this."""


class Back(Event):
    """A rollback: the candidate is rejected, and the stream goes back to this earlier checkpoint, which is validated next."""

    tok: Token
    """Of the train lease that made it."""
    step: Count
    path: RelativePath
    sha256: Sha256
    why: str


class Score(Measured):
    """The evaluator's figures for adapter and bare base on the same held-out rows; eval_loss is always among them."""

    tok: Token
    sha256: Sha256
    """Of the adapter."""
    rows_sha256: ShortSha256
    """Of the held-out rows: scores are compared only where this is equal."""
    rows: Count
    """That gave their loss."""
    answers: Count | None = None
    """Of these, those that were answered, where not all were."""
    scores_sha256: ShortSha256 | None = None
    """Of `scores.toon` in the stream's folder: the scores row by row, by which streams are compared."""
    cmd: str | None = None
    """The command that backs this."""


class Adapter(Event):
    """The validated adapter was published under `streams/<name>/adapter`."""

    implied: ClassVar[Mapping[str, str]] = {"path": "streams/{stream}/adapter"}

    tok: Token
    """Of the train lease that made it."""
    path: RelativePath
    sha256: Sha256


class Promote(Event):
    """The stream's adapter is the run's winner and stands under `promoted/`."""

    implied: ClassVar[Mapping[str, str]] = {"path": "promoted"}

    path: RelativePath
    sha256: Sha256
    why: str
    tok: Token | None = None
    """Of the train lease that made it; unset: whichever is published."""
    version: str | None = None
    """`NAME-vN`: the how-manieth adapter that runs of this name promote; whoever publishes it counts."""
    force: bool | None = None
    """True: a person promotes it over a WARNING, missing approvals or an objection, and `why` says for what reason."""


class Look(Event):
    """The sealed rows are looked at, for the weights that are to be promoted; the stream's task `sealed` follows from it."""

    sha256: Sha256
    """Of the adapter."""
    number: Count
    """How often they were looked at in this run, this time counted: each look tells the choosers a little."""


class Sealed(Measured):
    """What came of a look, in sums alone: no row and no score of a row leaves the validator."""

    tok: Token
    sha256: Sha256
    """Of the adapter."""
    result: Literal["SUCCESS", "FAIL"]
    rows: Count
    overlap: Count
    """Training rows that equal sealed ones."""
    why: str


class Compared(Event):
    """The arms that may win were compared before the promotion; `ref` is `run`, the intervals are the body."""

    implied: ClassVar[Mapping[str, str]] = {"arm": "{best}", "chosen": "{arm}"}

    metric: str
    best: Name
    """The arm with the best figure: a stream, or what its replicas have in common."""
    arm: Name
    """The one that is taken: the best, or the cheapest of those that cannot be told apart from it."""
    chosen: Name
    """Its stream."""
    tied: str | None = None
    """Arms that cannot be told apart from the best, with commas; the first of them."""
    beats_base: bool
    """Whether the arm that is taken is better than the bare base, and not by chance."""
    level: float
    """Of the test, over all comparisons."""
    scores: ShortSha256
    """Names the scores row by row that were compared."""
    why: str


# ---- notes, questions, opinions ---------------------------------------------------------------------------------------


class Post(Event):
    """A note; the text is the body.  A name after an @ in it reaches that agent's inbox."""

    asks: Names | None = None
    """Who is asked, with commas between: the question is open to each until its entry is answered (`of`)."""
    of: Token | None = None
    """The entry that it answers."""


class Amend(Event):
    """A correction of entry `of`, or an addition to a typed note; both entries remain, the text is the body."""

    of: Token


class Approve(Event):
    """The author agrees (to a promotion, or to entry `of`)."""

    of: Token | None = None
    why: str | None = None
    person: bool | None = None
    """True: the author is the run's owner or an admin; set when the entry is admitted."""


class Object(Event):
    """The author objects and states why; the promotion waits."""

    of: Token | None = None
    why: str


# ---- entries of the log itself ----------------------------------------------------------------------------------------


class Seal(Event):
    """Bytes that are no entry (a torn tail, text typed by a person) were kept and sealed."""

    off: Count
    n: Count
    sha: str
    why: Literal["torn", "note", "old-copy"]
    file: str | None = None
    """Where the file is kept that was in the log's place; for a note: the kept file into which it was written later."""
    upto: Count | None = None
    """For such a note: how many bytes of that file are recorded in the log now."""


class Head(Event):
    """A signed head of the chain: written every N entries and at a rotation."""

    chain: str
    mac: str
    file: str | None = None


KINDS: dict[str, type[Event]] = {
    cls.__name__.lower(): cls for cls in (*Event.__subclasses__(), *Measured.__subclasses__()) if cls is not Measured
}
"""Every kind of entry."""

RESULT_OF: dict[Role, str] = {
    "prepare": "prepared",
    "train": "trained",
    "validate": "verdict",
    "evaluate": "score",
    "sealed": "sealed",
}
"""The result that finishes a role's task and ends its lease."""
SETTLING = frozenset({"done", "drop", *RESULT_OF.values()})
"""Kinds by which a holder ends its lease."""
RESULTS = SETTLING | {"checkpoint"}
"""What a holder reports under its token."""
