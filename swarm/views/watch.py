"""Follow a run from outside: folds the log, gathers metrics and workers, and gives `Snapshot`s; the way in for all screens.

The log and the metrics are read from the run folder; what is published over the bus says when to read again and brings
live figures.  A gap in what is published only means: read again.  Without a coordinator the files alone are enough.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from swarm import config
from swarm.access.client import Client, connect
from swarm.artifacts.metrics import MetricsFile
from swarm.errors import UserError
from swarm.events import KINDS
from swarm.launch import local
from swarm.log import Entry, Log, run_is_alive
from swarm.messages import Metrics
from swarm.printable import one_line
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State
from swarm.views import logview
from swarm.views.snapshot import BusCounters, Snapshot, WorkerRow
from swarm.views.streamrows import Curves, stream_rows, task_rows, why_of
from toon import ToonError, decode

TAIL_LINES = 200
POLL_SECONDS = 0.5


class Watcher:
    """One view of one run; a thread listens, calls are safe from any other."""

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
        self._settings: RunSettings = config.of_run(folder)
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._log = Log(folder.log)
        self._state = State()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._curves: dict[str, Curves] = {}
        self._alive = run_is_alive(folder.log)
        self._workers = () if self._alive else _orphans(folder)
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
        self._thread.join(timeout=3)
        if self._peer:
            self._peer.close(flush_seconds=0.5)

    # ---- asked from outside ------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The fold as of now; treat it as read-only."""
        with self._lock:
            return self._state

    @property
    def settings(self) -> RunSettings:
        return self._settings

    def wait(self, timeout_seconds: float) -> bool:
        """True if something changed since the last `snapshot()`."""
        return self._changed.wait(timeout_seconds)

    def complete(self, timeout_seconds: float) -> Snapshot:
        """A snapshot that also holds the workers, which are published several times a second while a coordinator runs."""
        deadline = time.monotonic() + timeout_seconds
        while (found := self.snapshot()).state == "running" and not found.workers and time.monotonic() < deadline:
            self.wait(0.2)
        return found

    def snapshot(self) -> Snapshot:
        with self._lock:
            self._changed.clear()
            now = self._log.now()
            state = self._state
            return Snapshot(
                run=self.folder.name,
                folder=str(self.folder.path),
                base=", ".join(sorted({s.base_model for s in self._settings.streams.values()})),
                state=self._run_state(),
                rc=state.end.rc if state.end else None,
                seq=state.seq,
                log_ok=not self._log_fault,
                devices=", ".join(sorted({row.device for row in self._workers})),
                started=state.started,
                now=now,
                streams=stream_rows(state, self._settings, self._curves, self._workers, now),
                workers=self._workers,
                tasks=task_rows(state, now),
                tail=tuple(self._tail),
                bus=replace(self._bus, dropped=sum(row.dropped for row in self._workers)),
                promoted=state.promoted.ref if state.promoted else "",
                why=why_of(state, self._settings),
            )

    def _run_state(self) -> str:
        if self._state.end:
            return "ended"
        return "running" if self._alive else "no coordinator"

    def log_lines(self, since: int = 0, stream: str | None = None) -> list[str]:
        """The log, one line per entry."""
        with self._lock:
            entries = list(self._log.entries(since))
        return [logview.line(entry) for entry in entries if stream is None or entry.event.stream == stream]

    def say(self, kind: str, ref: str, **facts: object) -> str:
        """Append an event; returns a line for the screen.  Raises UserError when it is refused."""
        body = str(facts.pop("body", ""))
        try:
            event = KINDS[kind].model_validate({"ref": ref, "body": body, **facts})
        except ValueError as error:
            raise UserError(f"{kind} {ref}", str(error), "see `swarm skill`") from error
        with Client(self.folder, self.name) as door:
            return f"{door.append(event)} {kind} {ref}"

    # ---- gathered by the thread --------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        if not (self._alive and self.folder.connect.exists()):
            return None
        try:
            return connect(self.folder, self.name, subscribe=("entry", "metrics", "workers"))
        except UserError:
            return None  # the files alone still show the run

    def _listen(self) -> None:
        next_poll = 0.0
        while not self._closing.is_set():
            envelope = self._peer.published(POLL_SECONDS) if self._peer else None
            if envelope is not None:
                self._take(envelope.type, envelope.body)
            elif self._peer is None:
                self._closing.wait(POLL_SECONDS)
            if time.monotonic() >= next_poll:
                next_poll = time.monotonic() + POLL_SECONDS
                self._poll()

    def _poll(self) -> None:
        """What nobody publishes: the coordinator's death, and everything when there is none."""
        alive = run_is_alive(self.folder.log)
        if alive != self._alive or not alive:
            self._read_log()
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
        if topic == "entry" or gap:
            self._read_log()
        if gap:
            self._read_metrics()
        with contextlib.suppress(
            ToonError, ValueError
        ):  # a malformed picture is dropped: the next one comes in a second
            if topic == "metrics":
                self._add(Metrics.read(body))
            elif topic == "workers":
                self._set_workers(body)
        self._changed.set()

    def _add(self, table: Metrics) -> None:
        with self._lock:
            self._curves.setdefault(table.stream, Curves()).add(table)

    def _set_workers(self, body: str) -> None:
        value = decode(body)
        assert isinstance(value, dict)
        rows = tuple(_worker_row(row) for row in value["workers"])
        with self._lock:
            self._workers = rows

    def _read_log(self) -> None:
        from swarm.log import LogError

        with self._lock:
            try:
                for entry in self._log.refresh():
                    self._fold(entry)
                self._log_fault = ""
            except LogError as error:
                self._log_fault = str(error)

    def _fold(self, entry: Entry) -> None:
        self._state.apply(entry)
        self._tail.append(logview.line(entry))

    def _read_metrics(self) -> None:
        try:
            metrics = MetricsFile(self.folder.metrics, readonly=True)
        except sqlite3.OperationalError:
            return  # not made yet: the first metrics make it
        try:
            tables = metrics.tables()
        except sqlite3.OperationalError:
            return
        finally:
            metrics.close()
        with self._lock:
            self._curves = {}
            for table in tables:
                self._curves.setdefault(table.stream, Curves()).add(table)


def _worker_row(row: dict[str, Any]) -> WorkerRow:
    return WorkerRow(**{**row, "roles": tuple(str(row["roles"]).split()), "why": one_line(row["why"])})


def _orphans(folder: RunFolder) -> tuple[WorkerRow, ...]:
    """Workers that go on without a coordinator."""
    why = "no coordinator: `swarm resume` adopts it, `swarm stop` makes it save and leave"
    return tuple(WorkerRow(name, (), "orphan", pid=pid, why=why) for name, (pid, _) in local.living(folder).items())
