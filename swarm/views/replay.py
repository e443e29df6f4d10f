"""A run as it stood when entry N was the last: the same fold and the same table as now; reads files and changes nothing.

Figures are those that had been measured by then.  What only lived in memory is not told: workers, heartbeats, speeds of the
moment.
"""

from __future__ import annotations

import contextlib
import sqlite3

from swarm import config
from swarm.artifacts.metrics import MetricsFile
from swarm.errors import UserError
from swarm.log import Entry, Log
from swarm.rundir import RunFolder
from swarm.state import State, fold
from swarm.views import logview
from swarm.views.snapshot import Snapshot
from swarm.views.streamrows import Curves, stream_rows, task_rows, why_of

TAIL_LINES = 20


def snapshot_at(folder: RunFolder, to: int | None = None) -> Snapshot:
    """The run after entry `to`; the newest without it.  Raises UserError for an entry that there is not."""
    entries = list(Log(folder.log).entries())
    if not entries:
        raise UserError(folder.name, "nothing was recorded yet", "`swarm log --follow` waits for the first entry")
    last = len(entries) if to is None else checked_seq(to, len(entries))
    return _picture(folder, fold(entries[:last]), entries[max(0, last - TAIL_LINES) : last])


def checked_seq(to: int, count: int) -> int:
    """The seq itself.  Raises UserError if the log has no such entry."""
    if not 1 <= to <= count:
        raise UserError(f"--to {to}", f"the log's newest entry is {count}", "`swarm log` lists them")
    return to


def _picture(folder: RunFolder, state: State, tail: list[Entry]) -> Snapshot:
    settings = config.of_run(folder)
    return Snapshot(
        run=folder.name,
        folder=str(folder.path),
        base=", ".join(sorted({s.base_model for s in settings.streams.values()})),
        state="ended" if state.end else f"as of entry {state.seq}",
        rc=state.end.rc if state.end else None,
        seq=state.seq,
        started=state.started,
        now=state.time,
        streams=stream_rows(state, settings, _curves(folder, state.time), (), state.time),
        tasks=task_rows(state, state.time),
        tail=tuple(logview.line(entry) for entry in tail),
        promoted=state.promoted.ref if state.promoted else "",
        why=why_of(state, settings),
    )


def _curves(folder: RunFolder, until: float) -> dict[str, Curves]:
    """Log times are whole seconds: a figure of the same second counts as measured."""
    curves: dict[str, Curves] = {}
    with contextlib.suppress(sqlite3.OperationalError):  # none were measured yet
        with contextlib.closing(MetricsFile(folder.metrics, readonly=True)) as metrics:
            tables = metrics.tables()
        for table in tables:
            rows = [row for row in table.rows if row.time < until + 1]
            if rows:
                curves.setdefault(table.stream, Curves()).add(table.model_copy(update={"rows": rows}))
    return curves
