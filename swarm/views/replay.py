"""The state of a run after entry N, by the same fold and in the same table as now; it reads files and changes nothing.

Figures are those measured up to then.  Workers and heartbeats were only in memory and are not shown.
"""

from __future__ import annotations

from swarm import config
from swarm.artifacts.metrics import reading
from swarm.errors import UserError
from swarm.log import Log
from swarm.messages import Metrics
from swarm.rundir import RunFolder
from swarm.views.runview import RunView
from swarm.views.snapshot import Snapshot

TAIL_LINES = 20


def snapshot_at(folder: RunFolder, to: int | None = None) -> Snapshot:
    """The run after entry `to`, by default after the newest one.  Raises UserError for an entry that does not exist."""
    entries = list(Log(folder.log).entries())
    if not entries:
        raise UserError(folder.name, "nothing was recorded yet", "`swarm log --follow` waits for the first entry")
    last = len(entries) if to is None else checked_seq(to, len(entries))
    view = RunView(folder, config.of_run(folder, ()), TAIL_LINES)
    for entry in entries[:last]:
        view.fold(entry)
    view.add_again(_measured_by(folder, view.state.time))
    return view.snapshot(f"as of entry {last}", view.state.time)


def checked_seq(to: int, count: int) -> int:
    """`to` itself.  Raises UserError if the log has no such entry."""
    if not 1 <= to <= count:
        raise UserError(f"--to {to}", f"the log's newest entry is {count}", "`swarm log` lists them")
    return to


def _measured_by(folder: RunFolder, until: float) -> list[Metrics]:
    """The metrics up to that log time; log times are whole seconds, so rows of the same second are included."""
    with reading(folder.metrics) as metrics:
        tables = metrics.tables() if metrics else []
    return [
        Metrics.of(table.stream, table.token, table.steps, [row for row in table.rows if row.time < until + 1])
        for table in tables
    ]
