"""What can happen in a run: the closed list of event classes; an entry of the log is one of these, signed and numbered.

An event's class name in lower case is the entry's kind.  Every field except `ref` and `body` is a `k=v` of the entry
and may be folded into state; `body` is Markdown for readers and is never folded.
A new event is one class here and its line in `swarm/state.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    model_validator,
)

from swarm.figures import MAX_FIGURES, checked_name, is_compared, number
from swarm.printable import without_control

NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
"""A stream, worker, agent or run name."""
RESERVED = frozenset({"coordinator", "hub", "log", "run", "unknown"})
"""Author names that no member may have: they are the program's own."""

Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Role = Literal["prepare", "train", "validate", "evaluate"]
ROLES: tuple[Role, ...] = get_args(Role)
"""A stream's tasks, in the order in which they are done."""

Ref = Annotated[str, StringConstraints(pattern=rf"^(?:-|{NAME}(?:/{NAME})?)$")]
"""What an entry is about: `run`, a stream, `stream/role`, or `-` for nothing in particular."""


def _stays_inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or not path or any(ord(c) < 0x20 for c in path):
        raise ValueError("must be a path inside the run folder")
    return path


RelativePath = Annotated[str, AfterValidator(_stays_inside)]
"""A path inside the run folder: relative, never climbing out."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Token = Annotated[int, Field(ge=1)]
"""A fencing token: the seq of the claim (or hand) that began the lease."""


Figures = Annotated[
    dict[Annotated[str, AfterValidator(checked_name)], Annotated[float, PlainValidator(number)]],
    Field(max_length=MAX_FIGURES),
]
"""Numbers by the names of `swarm.figures`; one may be NaN or infinite, and who judges by it says what that means."""


class Event(BaseModel):
    """Something that happened, about `ref`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref
    body: Annotated[str, AfterValidator(without_control)] = ""
    """Without control characters, so that the event is equal to what is read back."""
    idem: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = None
    """Idempotency key: the same author's second event with it is the first."""

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    @property
    def stream(self) -> str:
        return self.ref.partition("/")[0]

    def facts(self) -> dict[str, Any]:
        """The fields that stand in the entry, in the order of the class, unset ones left out."""
        return {k: v for k, v in self.model_dump(exclude={"ref", "body"}).items() if v is not None}


class Measured(Event):
    """An event with figures: in the entry, and in `facts()`, each stands under its own name.

    So a key that is no field of the class is a figure, and its value a number.
    """

    figures: Figures = {}
    """Of the adapter, by the names of `swarm.figures`; the bare base's as `base_<name>`."""

    @model_validator(mode="before")
    @classmethod
    def _gather_figures(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or fields.keys() <= cls.model_fields.keys():
            return fields
        known = {key: value for key, value in fields.items() if key in cls.model_fields}
        flat = {OLDER_NAMES.get(key, key): value for key, value in fields.items() if key not in known}
        return {**known, "figures": {**known.get("figures", {}), **flat}}

    def facts(self) -> dict[str, Any]:
        facts = super().facts()
        named = facts.pop("figures")
        return {**facts, **named}


OLDER_NAMES = {
    "heldout": "eval_loss", "base_heldout": "base_eval_loss", "exact": "exact_match", "base_exact": "base_exact_match",
    "loss_first": "first_loss", "loss_last": "loss", "tok_s": "tokens_per_second",
}  # fmt: skip
"""Figures as entries named them before they were named in one table."""


# ---- the run and its streams -----------------------------------------------------------------------------------------


class Run(Event):
    """A run began; `ref` is `run`."""

    name: Name
    config_sha256: Sha256
    streams: int


class Stream(Event):
    """A stream belongs to the run from here on; its tasks follow from `ROLES`."""


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


class End(Event):
    """The run is over; `rc` is the exit status that `swarm run` gives."""

    rc: int


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
    rc: int = 0
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
    worked: float | None = None
    """Seconds that the holder worked on it; unset: as long as it held it."""


class Expire(Event):
    """The coordinator ends a lease whose holder died or sent no heartbeat in time."""

    tok: Token
    why: str
    failed: bool = True
    """False where the task is not to blame: a coordinator restarted."""
    held: int | None = None
    """How many tasks the worker held when it was lost, if more than one: none is blamed, and each is tried again alone."""
    worked: float | None = None
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
    rows: int
    held_out: int
    """Rows kept for validation and evaluation."""
    bad: int = 0
    """Malformed rows that were set aside."""
    tokens: int = 0
    supervised: int = 0
    """Tokens that the loss counts."""
    cut: int = 0
    """Rows longer than `sequence_len`."""
    cmd: str | None = None
    """The command that backs this."""


class Checkpoint(Measured):
    """A whole checkpoint stands under `path`."""

    tok: Token
    step: int
    path: RelativePath
    sha256: Sha256
    """Of the adapter's two files (`weights.adapter_sha256`), here and in all that follows."""


class Trained(Measured):
    """Training ended at `step`; the figures of the whole training: first and last loss, seconds, tokens_per_second, peak_bytes."""

    tok: Token
    step: int
    path: RelativePath
    sha256: Sha256
    trainable: int
    """Trainable parameters."""
    why: str | None = None
    """What ended it: max_steps, max_minutes, stop, ..."""
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
    step: int
    path: RelativePath
    sha256: Sha256
    why: str


class Score(Measured):
    """The evaluator's figures for adapter and bare base on the same held-out rows; eval_loss is always among them."""

    tok: Token
    sha256: Sha256
    """Of the adapter."""
    rows_sha256: Sha256
    """Of the held-out rows: scores are compared only where this is equal."""
    rows: int
    cmd: str | None = None
    """The command that backs this."""


class Adapter(Event):
    """The validated adapter was published under `streams/<name>/adapter`."""

    tok: Token
    """Of the train lease that made it."""
    path: RelativePath
    sha256: Sha256


class Promote(Event):
    """The stream's adapter is the run's winner and stands under `promoted/`."""

    path: RelativePath
    sha256: Sha256
    why: str
    tok: Token | None = None
    """Of the train lease that made it; unset: whichever is published."""
    force: bool | None = None
    """True: a person promotes it over a WARNING, missing approvals or an objection, and `why` says for what reason."""


# ---- notes, questions, opinions ---------------------------------------------------------------------------------------


class Post(Event):
    """A note; the text is the body.  A name after an @ in it reaches that agent's inbox."""

    asks: Name | None = None
    """Who is asked: the question is open until a post answers it (`of`)."""
    of: Token | None = None
    """The entry that it answers."""


class Amend(Event):
    """A correction of entry `of`, or an addition to a typed note; both entries remain, the text is the body."""

    of: Token


class Approve(Event):
    """The author agrees (to a promotion, or to entry `of`)."""

    of: Token | None = None
    person: bool | None = None
    """True: the author is the run's owner or an admin; set when the entry is admitted."""


class Object(Event):
    """The author objects and states why; the promotion waits."""

    of: Token | None = None
    why: str


# ---- entries of the log itself ----------------------------------------------------------------------------------------


class Seal(Event):
    """Bytes that are no entry (a torn tail, text typed by a person) were kept and sealed."""

    off: int
    n: int
    sha: str
    why: Literal["torn", "note", "old-copy"]
    file: str | None = None
    """Where the file is kept that was in the log's place; for a note: the kept file into which it was written later."""
    upto: int | None = None
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

RESULT_OF: dict[Role, str] = {"prepare": "prepared", "train": "trained", "validate": "verdict", "evaluate": "score"}
"""The result that finishes a role's task and ends its lease."""
SETTLING = frozenset({"done", "drop", *RESULT_OF.values()})
"""Kinds by which a holder ends its lease."""
RESULTS = SETTLING | {"checkpoint"}
"""What a holder reports under its token."""
