"""The table of worker processes, by name or by device."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from swarm import units
from swarm.views.snapshot import WorkerRow
from tui import looks
from tui.panes.pane import Pane
from tui.table import Column, Table
from tui.view import View

SILENT_SECONDS = 10.0
"""From this silence on it is shown as a warning."""
COLUMNS = (
    Column("name", "worker", 10, grow=8),
    Column("state", "state", 11),
    Column("task", "task", 12, grow=14),
    Column("device", "dev", 4, rank=2, grow=3),
    Column("memory", "mem", 7, rank=4, right=True),
    Column("silent", "heard", 6, rank=3, right=True),
    Column("pid", "pid", 7, rank=6, right=True),
    Column("bus", "bus", 8, rank=4, grow=40),
    Column("roles", "roles", 8, rank=5, grow=20),
    Column("why", "why", 8, rank=4, grow=60),
)


class Workers(Table, Pane):
    """The workers of the run."""

    def __init__(self, *, id: str, classes: str = "") -> None:  # noqa: A002 (Textual's name)
        super().__init__(COLUMNS, with_cursor=False, empty="no worker has connected yet", id=id, classes=classes)

    def show(self, view: View) -> None:
        rows = view.workers
        self.border_title = "workers by device" if view.by_device else "workers"
        self.border_subtitle = Text(view.snapshot.devices)
        self.show_rows([row.name for row in rows], [cells(row) for row in rows])


def held(tasks: Sequence[str]) -> Text:
    """The first of its tasks, or how many there are and their names, which may be cut."""
    if not tasks:
        return Text(units.NONE, style=looks.DIM)
    return Text(tasks[0] if len(tasks) == 1 else f"{len(tasks)}: {' '.join(tasks)}")


def cells(row: WorkerRow) -> dict[str, Text]:
    """One row."""
    return {
        "name": Text(row.name),
        "state": Text(row.state, style=looks.STATES.get(row.state, "")),
        "task": held(row.task.split()),
        "device": Text(row.device or units.NONE),
        "memory": Text(units.size(row.memory_bytes)),
        "silent": Text(
            units.duration(row.silent_seconds), style=looks.BAD if row.silent_seconds > SILENT_SECONDS else looks.DIM
        ),
        "pid": Text(str(row.pid or units.NONE), style=looks.DIM),
        "bus": Text(row.bus or "ok", style=looks.WARN if row.bus else looks.DIM),
        "roles": Text(" ".join(row.roles), style=looks.DIM),
        "why": Text(row.why, style=looks.BAD),
    }
