"""Follows a run from outside: applies entries and metrics as they come and gives `Snapshot`s; every screen uses it.

The log and the metrics are read from the run folder once; then each published entry and table of metrics is applied as it
arrives.  After a gap the files are read again.  Without a coordinator the files are polled.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bus.errors import BusError
from swarm import config
from swarm.access.adding import SECONDS as ANSWER_SECONDS
from swarm.access.adding import addition
from swarm.access.checked import checked
from swarm.access.client import Client, connect
from swarm.artifacts.metrics import MetricsFile
from swarm.errors import UserError
from swarm.events import KINDS
from swarm.launch import local
from swarm.log import Log, LogError, run_is_alive
from swarm.messages import Metrics
from swarm.plainfiles import opener
from swarm.printable import one_line
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State
from swarm.views import logview
from swarm.views.runview import RunView
from swarm.views.snapshot import BusCounters, Snapshot, WorkerRow
from swarm.views.streamrows import still_waits
from toon import ToonError, decode

POLL_SECONDS = 0.5
LINES, LINES_BYTES, LINE_CHARACTERS = 6, 4096, 160
"""Of what a worker prints, as much as is shown."""


class Watcher:
    """Follows one run in a thread of its own; its methods may be called from any thread."""

    @classmethod
    def attach(cls, run_folder: Path, *, name: str | None = None) -> Watcher:
        """Raises UserError if the folder holds no run."""
        folder = RunFolder(run_folder.resolve())
        if not folder.is_run:
            raise UserError(
                str(run_folder), "holds no run", "name a folder below runs/, or start one with `swarm run CONFIG`"
            )
        return cls(folder, name)

    def __init__(self, folder: RunFolder, name: str | None = None) -> None:
        self.folder, self.name = folder, name
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._log = Log(folder.log)
        self._view = RunView(folder, config.of_run(folder, ()))
        self._alive = run_is_alive(folder.log)
        self._workers = () if self._alive else _orphans(folder)
        self._lines: dict[str, tuple[str, ...]] = {}
        """What each worker printed last."""
        self._log_fault = ""
        self._bus = BusCounters()
        self._arrivals: deque[float] = deque(maxlen=400)
        self._missed = 0
        self._peer = self._connect()
        self._read_log()
        self._read_metrics()
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closing.set()
        self._close_peer()  # the thread may be waiting for what it publishes
        self._thread.join(timeout=3)
        self._close_peer()  # another, if it connected at this moment

    def _close_peer(self) -> None:
        if self._peer:
            self._peer.close(flush_seconds=0.5)

    # ---- asked from outside ------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The present state; treat it as read-only."""
        with self._lock:
            return self._view.state

    @property
    def settings(self) -> RunSettings:
        with self._lock:
            return self._view.settings

    def wait(self, timeout_seconds: float) -> bool:
        """True if something changed since the last `snapshot()`."""
        return self._changed.wait(timeout_seconds)

    def complete(self, timeout_seconds: float) -> Snapshot:
        """A snapshot that includes the workers: the coordinator publishes them several times a second, so this waits for them."""
        deadline = time.monotonic() + timeout_seconds
        while (found := self.snapshot()).state == "running" and not found.workers and time.monotonic() < deadline:
            self.wait(0.2)
        return found

    def snapshot(self) -> Snapshot:
        with self._lock:
            self._changed.clear()
            return self._view.snapshot(
                "running" if self._alive else "no coordinator",
                self._log.now(),
                tuple(replace(row, lines=self._lines.get(row.name, ())) for row in self._workers),
                bus=replace(self._bus, dropped=sum(row.dropped for row in self._workers)),
                log_ok=not self._log_fault,
            )

    def log_lines(self, since: int = 0, stream: str | None = None) -> list[str]:
        """The log, one line per entry."""
        with self._lock:
            entries = list(self._log.entries(since))
        return [logview.line(entry) for entry in entries if stream is None or entry.event.stream == stream]

    def say(self, kind: str, ref: str, **facts: object) -> str:
        """Append an event; returns a line for the screen.  Raises UserError when it is refused."""
        event = checked(KINDS[kind], ref=ref, **facts)
        with Client(self.folder, self.name) as client:
            line = f"{client.append(event)} {kind} {ref}"
        if kind != "approve":
            return line
        self._read_log()
        still = still_waits(self.state, self.settings, ref)
        return f"{line}; it {still}" if still else line

    def add(self, name: str, like: str, changes: Sequence[str], *, warm: bool, why: str = "") -> str:
        """Let a stream join, a clone of `like` with `warm`; as `say`.  Raises UserErrors for changes that will not do."""
        event = addition(self.folder, self.state, name, like, changes, warm=warm, why=why)
        with Client(self.folder, self.name) as client:
            return f"{client.append(event, timeout_seconds=ANSWER_SECONDS)} add {name}"

    # ---- gathered by the thread --------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        if not (self._alive and self.folder.connect.exists()):
            return None
        try:
            return connect(self.folder, self.name, subscribe=("entry", "metrics", "workers"))
        except UserError:
            return None  # without keys the files still show the run

    def _listen(self) -> None:
        next_poll = 0.0
        while not self._closing.is_set():
            try:
                envelope = self._peer.published(POLL_SECONDS) if self._peer else None
            except BusError:
                if self._closing.is_set():
                    return
                raise
            if envelope is not None:
                self._take(envelope.type, envelope.body)
            elif self._peer is None:
                self._closing.wait(POLL_SECONDS)
            if time.monotonic() >= next_poll:
                next_poll = time.monotonic() + POLL_SECONDS
                self._poll()

    def _poll(self) -> None:
        """Notice what is not published: text typed into the log, the end of the coordinator, and everything while there is none."""
        alive = run_is_alive(self.folder.log)
        lines = {row.name: _last_lines(self.folder.workers / f"{row.name}.log") for row in self._workers}
        if lines != self._lines:
            with self._lock:
                self._lines = lines
            self._changed.set()
        before = self._view.state.seq
        self._read_log()
        if self._view.state.seq != before:
            self._changed.set()
        if alive != self._alive or not alive:
            if not alive and self._alive:
                self._read_metrics()
            with self._lock:
                self._alive = alive
                self._workers = self._workers if alive else _orphans(self.folder)
            self._changed.set()
        if alive and self._peer is None:
            self._peer = self._connect()

    def _take(self, topic: str, body: str) -> None:
        missed = self._peer.counters.missed
        gap, self._missed = missed > self._missed, missed
        now = time.monotonic()
        self._arrivals.append(now)
        recent = [at for at in self._arrivals if now - at < 5.0]
        with self._lock:
            self._bus = BusCounters(round(len(recent) / 5.0, 1), self._bus.received + 1, missed)
        if gap:
            self._read_log()
            self._read_metrics()
        elif topic == "entry":
            self._take_entry(body)
        with contextlib.suppress(
            ToonError, ValueError
        ):  # a malformed message is dropped: the next one follows within a second
            if topic == "metrics":
                self._add(Metrics.read(body))
            elif topic == "workers":
                self._set_workers(body)
        self._changed.set()

    def _add(self, table: Metrics) -> None:
        with self._lock:
            self._view.add(table)

    def _set_workers(self, body: str) -> None:
        value = decode(body)
        assert isinstance(value, dict)
        rows = tuple(_worker_row(row) for row in value["workers"])
        with self._lock:
            self._workers = rows

    def _take_entry(self, text: str) -> None:
        with self._lock, self._noting_faults():
            entry = self._log.next_published(text)
            for found in [entry] if entry else self._log.refresh():
                self._view.fold(found)

    def _read_log(self) -> None:
        with self._lock, self._noting_faults():
            for entry in self._log.refresh():
                self._view.fold(entry)

    @contextlib.contextmanager
    def _noting_faults(self) -> Iterator[None]:
        try:
            yield
            self._log_fault = ""
        except LogError as error:
            self._log_fault = str(error)

    def _read_metrics(self) -> None:
        try:
            metrics = MetricsFile(self.folder.metrics, readonly=True)
        except sqlite3.OperationalError:
            return  # it is created with the first metrics
        try:
            tables = metrics.tables()
        except sqlite3.OperationalError:
            return
        finally:
            metrics.close()
        with self._lock:
            self._view.add_again(tables)


def _last_lines(path: Path) -> tuple[str, ...]:
    """The last lines of a file that grows; none where it is not there (yet)."""
    try:
        with open(path, "rb", opener=opener) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LINES_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(one_line(line, LINE_CHARACTERS) for line in text.splitlines()[-LINES:] if line.strip())


def _worker_row(row: dict[str, Any]) -> WorkerRow:
    return WorkerRow(**{**row, "roles": tuple(str(row["roles"]).split()), "why": one_line(row["why"])})


def _orphans(folder: RunFolder) -> tuple[WorkerRow, ...]:
    """Worker processes that go on without a coordinator."""
    why = "no coordinator: `swarm resume` adopts it, `swarm stop` makes it save and leave"
    return tuple(WorkerRow(name, (), "orphan", pid=known.pid, why=why) for name, known in local.living(folder).items())
