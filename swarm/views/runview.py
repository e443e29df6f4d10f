"""The state, curves and newest log lines of one run, and the one place where a `Snapshot` is made from them.

It reads no files: `watch` and `replay` hand it entries and metrics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from swarm.config import added
from swarm.events import Add, Claim, End, Resume, Run
from swarm.log import Entry
from swarm.messages import Metrics
from swarm.policy import feedback
from swarm.policy.spending import usage
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State
from swarm.views import logview
from swarm.views.curves import Curves
from swarm.views.leaderboard import leaderboard
from swarm.views.snapshot import BusCounters, Snapshot, StreamRow, WorkerRow
from swarm.views.streamrows import run_eta, stream_rows, task_rows, waits_of, why_of

TAIL_LINES = 200
STREAM_LINES = 40


class RunView:
    """One view of one run."""

    def __init__(self, folder: RunFolder, settings: RunSettings, tail_lines: int = TAIL_LINES) -> None:
        self.folder, self.settings = folder, settings
        self.state = State()
        self.curves: dict[str, Curves] = {}
        self._tail: deque[str] = deque(maxlen=tail_lines)
        self._tails: dict[str, deque[str]] = {}
        """The newest lines about each stream."""
        self._workers: dict[str, str] = {}
        """The worker process that last had a task of each stream."""
        self._ran_seconds = 0.0
        """Seconds that the run was going before `_runs_since`."""
        self._runs_since: float | None = None

    def fold(self, entry: Entry) -> None:
        self.state.apply(entry)
        if isinstance(entry.event, Add):
            self.settings = added.settings_of(self.settings, entry.event)
        line, stream = logview.line(entry), entry.event.stream
        self._tail.append(line)
        self._tails.setdefault(stream, deque(maxlen=STREAM_LINES)).append(line)
        if isinstance(entry.event, Claim) and entry.event.beats:
            self._workers[stream] = entry.author
        self._clock(entry)

    def _clock(self, entry: Entry) -> None:
        match entry.event:
            case Run() | Resume() if self._runs_since is None:
                self._runs_since = entry.time
            case End() if self._runs_since is not None:
                self._ran_seconds += entry.time - self._runs_since
                self._runs_since = None
            case _:
                pass

    def _elapsed_seconds(self, now: float) -> float | None:
        if self.state.run is None:
            return None
        return self._ran_seconds + (max(0.0, now - self._runs_since) if self._runs_since is not None else 0.0)

    def add(self, table: Metrics) -> None:
        self.curves.setdefault(table.stream, Curves()).add(table)

    def add_again(self, tables: Iterable[Metrics]) -> None:
        """Replace all metrics."""
        self.curves = {}
        for table in tables:
            self.add(table)

    def _run_state(self, otherwise: str) -> str:
        if self.state.end:
            return "ended"
        if self.state.run is None:
            return "starting" if otherwise == "running" else "not started"
        return otherwise

    def _rows(self, workers: tuple[WorkerRow, ...], now: float) -> tuple[StreamRow, ...]:
        rows = stream_rows(self.state, self.settings, self.curves, workers, now)
        tails, had = self._tails, self._workers
        return tuple(
            replace(row, tail=tuple(tails.get(row.name, ())), last_worker=had.get(row.name, "")) for row in rows
        )

    def snapshot(
        self,
        run_state: str,
        now: float,
        workers: tuple[WorkerRow, ...] = (),
        *,
        bus: BusCounters | None = None,
        log_ok: bool = True,
    ) -> Snapshot:
        """The run at log time `now`; `run_state` is used unless the log says that the run has ended or was never started."""
        state = self.state
        rows = self._rows(workers, now)
        board = leaderboard(state, self.settings, rows, now)
        return Snapshot(
            run=self.folder.name,
            folder=str(self.folder.path),
            base=", ".join(sorted({s.base_model for s in self.settings.streams.values()})),
            state=self._run_state(run_state),
            rc=state.end.rc if state.end else None,
            seq=state.seq,
            log_ok=log_ok,
            devices=", ".join(sorted({row.device for row in workers})),
            elapsed_seconds=self._elapsed_seconds(now),
            silent_seconds=max(0.0, now - state.time),
            now=now,
            streams=rows,
            eta_seconds=run_eta(rows),
            leader=state.promoted.ref if state.promoted else board.first,
            leaderboard=board,
            budget=", ".join(usage(state, self.settings, state.time if state.end else now)),
            feedback=feedback.standing(state, self.settings),
            workers=workers,
            tasks=task_rows(state, now),
            tail=tuple(self._tail),
            bus=bus or BusCounters(),
            promoted=state.promoted.ref if state.promoted else "",
            why=why_of(state),
            waits=waits_of(state, self.settings),
        )
