"""What coordinator and workers say to each other: one class per message type, carried as a TOON document in an envelope.

worker -> coordinator   hello, ready, report, metrics, bye        coordinator -> worker   assign, order, quit
anyone -> coordinator   ask (answered)                            coordinator -> all      entry, metrics, workers (published)
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, SkipValidation, model_validator

from swarm.events import KINDS, Event, Name, RelativePath, Role, Sha256, Token
from swarm.settings import StreamSettings
from toon import decode, decode_tables, encode


class Message(BaseModel):
    """A message whose envelope type is `type`; `toon()` and `read()` are its two ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: ClassVar[str]

    def toon(self) -> str:
        return encode(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ToonError or pydantic's ValidationError on a document of another shape."""
        return cls.model_validate(decode(text))


class Hello(Message):
    """A worker lives and says what it has in hand: sent before it imports anything heavy, and to every new coordinator.

    Whatever it reported before has come before.
    """

    type: ClassVar[str] = "hello"
    roles: list[Role]
    pid: int
    started: float
    """Start time of the process, seconds since the epoch."""
    host: str
    device: str
    """`cpu`, or `gpu0`: the index that the user knows."""
    threads: int = 1
    state: Literal["importing", "idle", "working", "paused"] = "importing"
    ref: str | None = None
    token: Token | None = None


class Ready(Message):
    """The worker has imported what its roles need and takes tasks."""

    type: ClassVar[str] = "ready"
    import_seconds: float
    resident_bytes: int
    """Process memory after the imports; peaks are reported above it."""
    device_name: str | None = None


class Assign(Message):
    """Do this task; the lease is yours under `token`."""

    type: ClassVar[str] = "assign"
    ref: str
    token: Token
    role: Role
    stream: Name
    settings: SerializeAsAny[StreamSettings]
    prepared: RelativePath | None = None
    """Folder of the prepared rows (all roles but prepare)."""
    prepared_sha256: Sha256 | None = None
    """Of their manifest, as the log has it."""
    resume_from: list[RelativePath] = []
    """Whole checkpoints, newest first (train)."""
    spent_seconds: float = 0.0
    """Training time of earlier attempts (counts towards max_minutes)."""
    checkpoint: RelativePath | None = None
    """What is to be judged (validate, evaluate)."""
    sha256: Sha256 | None = None
    """The hash that the maker gave for it."""
    heldout: float | None = None
    """The held-out loss that the maker gave for it."""


class Order(Message):
    """What the holder of a train task is to do at its next step boundary."""

    type: ClassVar[str] = "order"
    ref: str
    token: Token
    what: Literal["pause", "resume", "stop", "hand", "lost"]
    """stop: save a checkpoint and end.  hand: go on, and report under `token` from here.  lost: end without a word."""


class Quit(Message):
    """Leave: finish nothing, save what is whole."""

    type: ClassVar[str] = "quit"
    why: str = ""


class Report(Message):
    """An event that the worker wants recorded; it is fenced by the token among its fields."""

    type: ClassVar[str] = "report"
    kind: str
    ref: str
    body: str = ""
    facts: dict[str, Any] = {}

    @classmethod
    def of(cls, event: Event) -> Report:
        return cls(kind=event.kind, ref=event.ref, body=event.body, facts=event.facts())

    def event(self) -> Event:
        """Raises ValueError on an unknown kind, ValidationError on wrong fields."""
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is no kind of entry")
        return KINDS[self.kind](ref=self.ref, body=self.body, **self.facts)


class Ask(Message):
    """A question or a wish from a person, script or agent; the answer is a TOON document too."""

    type: ClassVar[str] = "ask"
    what: Literal["append", "state", "workers", "links"]
    report: Report | None = None


Count = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A whole number that SQLite can hold."""
Kind = Literal["train", "eval"]


class MetricRow(NamedTuple):
    """The figures of one step: a plain tuple, since one is made between two steps and goes to SQLite as it is."""

    step: int
    kind: Kind
    time: float
    """Seconds since the epoch."""
    epoch: float | None = None
    loss: float | None = None
    """Mean over the supervised tokens since the last row, nats; None where it was not finite."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int | None = None
    """Tokens seen since training began."""
    tokens_per_second: float | None = None
    memory_bytes: int | None = None


_row = partial(tuple.__new__, MetricRow)
"""A row from its cells; `MetricRow._make` would count them each time."""
METRIC_COLUMNS = MetricRow._fields
"""Columns of a metrics table; the table's envelope is a `Metrics`."""


class MetricColumns(BaseModel):
    """The rows of a table by column, as they are checked: nothing is converted, nothing may be missing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    step: list[Count]
    kind: list[Kind]
    time: list[float]
    epoch: list[float | None]
    loss: list[float | None]
    learning_rate: list[float | None]
    grad_norm: list[float | None]
    tokens: list[Count | None]
    tokens_per_second: list[float | None]
    memory_bytes: list[Count | None]

    @model_validator(mode="after")
    def _are_of_one_length(self) -> Self:
        if len({len(column) for _, column in self}) > 1:
            raise ValueError("columns of different lengths are no table")
        return self


class _Figures(Message):
    type: ClassVar[str] = "metrics"
    stream: Name
    token: Annotated[Token, Field(lt=1 << 63)]
    steps: Count
    """Optimizer steps that the whole training is planned to take."""


class _Received(_Figures):
    rows: MetricColumns


class Metrics(_Figures):
    """One or several rows of one stream's figures, as a TOON table."""

    rows: SkipValidation[list[MetricRow]]
    """Checked when they are read."""

    def toon(self) -> str:
        rows = [row._asdict() for row in self.rows]
        return encode({"stream": self.stream, "token": self.token, "steps": self.steps, "rows": rows})

    @classmethod
    def read(cls, text: str) -> Self:
        """Checks every cell, a column at a time: a tenth of what it costs row by row."""
        table = _Received.model_validate(decode_tables(text), strict=True)
        rows = list(map(_row, zip(*(column for _, column in table.rows), strict=True)))
        return cls(stream=table.stream, token=table.token, steps=table.steps, rows=rows)


class Heartbeat(Message):
    """What a worker says of itself with every heartbeat."""

    type: ClassVar[str] = "heartbeat"
    state: Literal["importing", "idle", "working", "paused"]
    ref: str | None = None
    token: Token | None = None
    step: int | None = None
    """The progress watermark: one that stands still is a stall."""
    memory_bytes: int | None = None
