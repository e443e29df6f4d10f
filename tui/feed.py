"""Posts a run's snapshots to the app and carries out the person's actions; the only module here that uses the watcher.

Two threads, so that the screen never waits for the bus: one posts the newest snapshot, at most four times a second; the other
appends events and reads the log.  All text is made safe here, once, before it is drawn.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

from textual.message import Message

from swarm.access.checked import words as words_in
from swarm.errors import UserError, UserErrors
from swarm.printable import visible
from swarm.views.snapshot import Snapshot

PERIOD_SECONDS = 0.25
"""Shortest time between two snapshots: drawing at 4 Hz costs a fifth of a core, at 10 Hz a third."""
IDLE_SECONDS = 1.0
"""Longest time between two snapshots: clocks and leases change even when nothing else does."""

Data = TypeVar("Data")


class Source(Protocol):
    """The methods of a watcher that the dashboard uses."""

    def snapshot(self) -> Snapshot: ...
    def wait(self, timeout_seconds: float) -> bool: ...
    def say(self, kind: str, ref: str, **facts: object) -> str: ...
    def add(self, name: str, like: str, changes: Sequence[str], *, warm: bool, why: str = "") -> str: ...
    def log_lines(self, since: int = 0, stream: str | None = None) -> list[str]: ...
    def close(self) -> None: ...


@dataclass
class Arrived(Message):
    """A newer snapshot of the run."""

    snapshot: Snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Arrived)


@dataclass
class Recorded(Message):
    """An event was recorded; `line` is its entry."""

    kind: str
    ref: str
    line: str


@dataclass
class Refused(Message):
    """An event was refused, or the log could not be read."""

    what: str
    why: str


@dataclass
class LogRead(Message):
    """The log, one line per entry."""

    lines: list[str]
    stream: str | None


@dataclass
class Lost(Message):
    """The run cannot be watched any more."""

    why: str


class Feed:
    """Connects one source with one app; `post` must be safe to call from a thread."""

    def __init__(
        self, source: Source, post: Callable[[Message], object], period_seconds: float = PERIOD_SECONDS
    ) -> None:
        self.source = source
        self.post = post
        self.period_seconds = period_seconds
        self._stopped = threading.Event()
        self._acts: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def start(self) -> None:
        for loop in (self._bring, self._act):
            threading.Thread(target=loop, name=f"feed{loop.__name__}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        self._acts.put(lambda: None)

    def say(self, kind: str, ref: str, **facts: object) -> None:
        """Append an event; the answer comes as `Recorded` or `Refused`."""
        self._acts.put(
            lambda: self._try(
                f"{kind} {ref}", lambda: Recorded(kind, ref, visible(self.source.say(kind, ref, **facts)))
            )
        )

    def add(self, like: str, words: str, *, warm: bool) -> None:
        """Let a stream join: `NAME key=value ... -- why`; the answer comes as `Recorded` or `Refused`."""

        def act() -> Message:
            typed, _, why = words.partition(" -- ")
            name, *changes = words_in(typed, like)
            return Recorded("add", like, visible(self.source.add(name, like, changes, warm=warm, why=why.strip())))

        self._acts.put(lambda: self._try(f"{'clone' if warm else 'new'} {like}", act))

    def read_log(self, stream: str | None = None) -> None:
        """Read the whole log; it comes as `LogRead`."""
        self._acts.put(
            lambda: self._try("log", lambda: LogRead([visible(x) for x in self.source.log_lines(0, stream)], stream))
        )

    def _try(self, what: str, act: Callable[[], Message]) -> None:
        try:
            self.post(act())
        except (UserError, UserErrors) as error:
            self.post(Refused(what, visible(" · ".join(str(error).splitlines()))))
        except Exception as error:  # a thread's traceback would be hidden by the screen, so it is shown there
            self.post(Refused(what, visible(f"{type(error).__name__}: {error}")))

    def _act(self) -> None:
        while not self._stopped.is_set():
            self._acts.get()()

    def _bring(self) -> None:
        try:
            while not self._stopped.is_set():
                self.post(Arrived(harmless(self.source.snapshot())))
                self._stopped.wait(self.period_seconds)
                self.source.wait(IDLE_SECONDS - self.period_seconds)
        except Exception as error:  # as above: the app shows it
            self.post(Lost(visible(f"{type(error).__name__}: {error}")))


def harmless(data: Data) -> Data:
    """The data with every text in it safe to draw."""
    assert is_dataclass(data) and not isinstance(data, type)
    changed = {f.name: new for f in fields(data) if (new := _safe(old := getattr(data, f.name))) is not old}
    return replace(data, **changed) if changed else data


def _safe(value: Any) -> Any:
    match value:
        case str():
            return visible(value)
        case tuple() if value and (isinstance(value[0], str) or is_dataclass(value[0])):
            made = tuple(_safe(item) for item in value)
            return made if any(a is not b for a, b in zip(made, value, strict=True)) else value
        case _ if is_dataclass(value):
            return harmless(value)
        case _:
            return value
