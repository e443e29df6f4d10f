"""What coordinator and workers say to each other: one class per message type, carried as a TOON document in an envelope.

worker -> coordinator   hello, ready, report, metrics, bye        coordinator -> worker   assign, order, quit
anyone -> coordinator   ask (answered)                            coordinator -> all      entry, metrics, workers (published)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from math import isfinite
from types import MappingProxyType, NoneType
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, SkipValidation

from swarm.event import Count, Event, Figures, Name, RelativePath, Role, Seconds, Sha256, Token
from swarm.events import KINDS
from swarm.figures import MAX_FIGURES, MAX_WHOLE, checked_name
from swarm.settings import StreamSettings
from toon import decode, decode_tables, encode, encode_columns


class Message(BaseModel):
    """A message whose envelope type is `type`; `toon()` and `read()` are its two ends."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    type: ClassVar[str]

    def toon(self) -> str:
        return encode(self.model_dump(mode="json", exclude_none=True))

    max_values: ClassVar[int] = 2_000
    """Fields and items of a document, at all levels; the library makes an error object for each that it does not know."""

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises ToonError, ValueError for too many values, or pydantic's ValidationError on a document of another shape."""
        value = decode(text)
        _check_count(value, cls.max_values)
        return cls.model_validate(value)


def _check_count(value: Any, most: int) -> None:
    """Raises ValueError where the value has more than `most` fields and items."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            most -= len(value)
            if most < 0:
                raise ValueError("the message has too many values")
            waiting.extend(value.values() if isinstance(value, dict) else value)


class Held(BaseModel):
    """A lease in the hands of a worker, as the worker itself says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: str
    token: Token
    state: Literal["waiting", "working", "paused"] = "working"
    """waiting: not begun; the worker does another of its tasks first."""
    step: Count | None = None
    """The progress watermark: one that stands still is a stall."""
    worked: Seconds = 0.0
    """Seconds of work on it under this lease, pauses left out."""
    kept_bytes: Count | None = None
    """Memory of a training beside what its group shares, from step to step, measured after two of its steps; None before."""
    passing_bytes: Count | None = None
    """The same within a step."""

    @property
    def stream(self) -> str:
        return self.ref.partition("/")[0]

    @property
    def own_bytes(self) -> int | None:
        return None if self.kept_bytes is None else self.kept_bytes + (self.passing_bytes or 0)


class Hello(Message):
    """A worker lives and says which leases it holds: sent before it imports anything heavy, and to every new coordinator.

    Whatever it reported before has come before.
    """

    type: ClassVar[str] = "hello"
    roles: list[Role]
    pid: Count
    started: Seconds
    """Start time of the process, seconds since the epoch."""
    host: str
    device: str
    """`cpu`, `mps`, or `gpu0`: the index that the user knows."""
    threads: Count = 1
    state: Literal["importing", "idle", "working"] = "importing"
    holds: list[Held] = []


class Ready(Message):
    """The worker has imported what its roles need and takes tasks."""

    type: ClassVar[str] = "ready"
    import_seconds: Seconds
    resident_bytes: Count
    """Process memory after the imports; peaks are reported above it."""
    device_name: str | None = None


class WarmStart(BaseModel):
    """A checkpoint of another stream from which a training begins, at step 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: RelativePath
    sha256: Sha256
    """Of the adapter's two files."""
    stream: Name
    """Whose it is."""
    step: int
    moments: bool
    """Whether the optimizer's state is used too: another optimizer keeps others."""


class Piece(BaseModel):
    """One task and all that is needed to do it; the lease is held under `token`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    figures: Figures = {}
    """The figures that the maker stated for it."""
    warm: WarmStart | None = None
    """From what a training begins that has no checkpoint of its own yet; None: from an untrained adapter (train)."""


class Assign(Message):
    """Do these tasks beside what is held already; their leases are the worker's from here on."""

    type: ClassVar[str] = "assign"
    max_values: ClassVar[int] = 200_000
    pieces: Annotated[list[Piece], Field(min_length=1)]

    @staticmethod
    def leases(text: str) -> list[tuple[str, int]]:
        """Ref and token of each piece, also where the rest was written by another version.  Raises ToonError."""
        value = decode(text)
        pieces = value.get("pieces") if isinstance(value, dict) else None
        found = [piece for piece in pieces if isinstance(piece, dict)] if isinstance(pieces, list) else []
        named = [(piece.get("ref"), piece.get("token")) for piece in found]
        return [(ref, token) for ref, token in named if isinstance(ref, str) and isinstance(token, int)]


What = Literal["pause", "resume", "stop", "hand", "revoke", "measure"]


class Order(Message):
    """What the holder of a task is to do with it at its next step boundary; its other tasks go on."""

    type: ClassVar[str] = "order"
    ref: str
    token: Token
    what: What
    """stop: save a checkpoint and end.  hand: go on, and report under `token` from here.  revoke: the lease is over; end, report nothing.
    measure: go on, and say in heartbeats what memory it takes."""


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
    what: Literal["append", "links", "workers", "bus"]
    report: Report | None = None


Kind = Literal["train", "eval"]
"""What a metric row was measured on: the training rows of its steps, or the held-out ones."""
ROW = ("step", "kind", "time")
"""Columns of every metrics table; the figures follow."""
Cell = str | int | float | None


class MetricRow(NamedTuple):
    """The figures of one step: a plain tuple, since one is made between two steps."""

    step: int
    kind: Kind
    time: float
    """Seconds since the epoch."""
    figures: Mapping[str, float] = MappingProxyType({})
    """Only finite ones: one that was not measured, or was not finite, is left out."""


class Metrics(Message):
    """One or several metric rows of one stream, as a TOON table: step, kind, time, then a column for each figure that a row has."""

    type: ClassVar[str] = "metrics"
    stream: Name
    token: Token
    steps: Count
    """Optimizer steps that the whole training is planned to take."""
    columns: SkipValidation[Mapping[str, Sequence[Cell]]]
    """Checked when they are read.  A cell is None where the row lacks the figure."""

    @classmethod
    def of(cls, stream: str, token: int, steps: int, rows: Sequence[MetricRow]) -> Self:
        names = dict.fromkeys(chain.from_iterable(row.figures for row in rows))
        table = {
            **{name: [getattr(row, name) for row in rows] for name in ROW},
            **{name: [row.figures.get(name) for row in rows] for name in names},
        }
        return cls(stream=stream, token=token, steps=steps, columns=table)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the figures, in the order of their columns."""
        return tuple(self.columns)[len(ROW) :]

    @property
    def rows(self) -> list[MetricRow]:
        names = self.names
        table: Iterable[Any] = zip(*self.columns.values(), strict=True)
        return [MetricRow(step, kind, time, _present(names, cells)) for step, kind, time, *cells in table]

    def toon(self) -> str:
        head = {"stream": self.stream, "token": self.token, "steps": self.steps}
        return f"{encode(head)}\nrows{encode_columns(self.columns)}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Checks every cell, a column at a time: a fraction of what it costs row by row.  Raises ToonError or ValueError."""
        document = decode_tables(text)
        rows = document.pop("rows", None) if isinstance(document, dict) else None
        if not isinstance(rows, dict):
            raise ValueError("rows: is no table")  # noqa: TRY004  whatever is wrong with a message is one
        return cls.model_validate({**document, "columns": _checked(rows)}, strict=True)


def _present(names: Sequence[str], cells: Sequence[Any]) -> dict[str, float]:
    return {name: value for name, value in zip(names, cells, strict=True) if value is not None}


def _checked(columns: dict[str, Any]) -> dict[str, list[Any]]:
    """The table with its columns in our order.  Raises ValueError where it is none, or has a cell of another kind."""
    for name in ROW:
        if not columns.get(name):
            raise ValueError(f"{name}: is missing")
    if set(map(type, columns.values())) != {list} or len(set(map(len, columns.values()))) > 1:
        raise ValueError("columns of different lengths are no table")
    steps, kinds, times = ordered = [columns.pop(name) for name in ROW]
    if set(map(type, steps)) != {int} or min(steps) < 0 or max(steps) >= MAX_WHOLE:
        raise ValueError("step: a whole number of at least 0 and below 2**63 is wanted")
    if set(map(type, kinds)) != {str} or not KIND_NAMES.issuperset(kinds):
        raise ValueError(f"kind: is one of {', '.join(sorted(KIND_NAMES))}")
    if None in times:
        raise ValueError("time: is missing")
    _check_numbers("time", times)
    if len(columns) > MAX_FIGURES:
        raise ValueError(f"{len(columns)} figures: a message has at most {MAX_FIGURES}")
    for name, column in columns.items():
        _check_numbers(checked_name(name), column)
    return {**dict(zip(ROW, ordered, strict=True)), **columns}


def _check_numbers(name: str, column: list[Any]) -> None:
    """Numbers or nothing, all finite; whole ones within what SQLite can hold."""
    kinds = set(map(type, column))
    if not kinds <= NUMBERS:
        raise ValueError(f"{name}: a number or nothing is wanted")
    given = [cell for cell in column if cell is not None] if NoneType in kinds else column
    if int in kinds and (min(given) < -MAX_WHOLE or max(given) >= MAX_WHOLE):
        raise ValueError(f"{name}: whole numbers are below 2**63")
    # A sum of finite numbers is finite unless it overflows, and four times as fast as a look at each.
    if not isfinite(sum(given)) and not all(map(isfinite, given)):
        raise ValueError(f"{name}: a figure that is not finite is left out")


KIND_NAMES = frozenset(get_args(Kind))
NUMBERS = frozenset({int, float, NoneType})


class Heartbeat(Message):
    """What a worker says of itself with every heartbeat."""

    type: ClassVar[str] = "heartbeat"
    state: Literal["importing", "idle", "working"]
    """idle: none of the tasks that it holds is being worked on, or it holds none."""
    holds: list[Held] = []
    memory_bytes: Count | None = None
