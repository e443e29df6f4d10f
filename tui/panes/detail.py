"""Everything the snapshot knows of one stream, as named facts."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text
from textual.widgets import Static

from swarm import units
from swarm.views.snapshot import StreamRow
from tui import looks
from tui.panes.log import ENTRY, coloured
from tui.view import View

CHECKPOINTS_SHOWN = 6
ENTRIES_SHOWN = 12


class Detail(Static):
    """The selected stream."""

    shown: tuple[StreamRow | None, tuple[str, ...]] | None = None

    def show(self, view: View) -> None:
        row = view.row
        entries = about(row.name, view.snapshot.tail) if row else ()
        if (row, entries) == self.shown:
            return
        self.shown = (row, entries)
        if row is None:
            self.border_title = "no stream"
            self.update("")
            return
        self.border_title = Text.assemble(
            ("● ", looks.hue(view.place(row.name))), row.name, " · ", (row.state, looks.STATES.get(row.state, ""))
        )
        self.update(Group(grid(row), Text(), *map(coloured, entries)))


def about(name: str, tail: tuple[str, ...]) -> tuple[str, ...]:
    """The stream's newest entries, the newest first: where there is little room, that one is seen."""
    found = [line for line in tail if (entry := ENTRY.match(line)) and entry["ref"].partition("/")[0] == name]
    return tuple(line.replace(f" {name}/", " ", 1) for line in reversed(found[-ENTRIES_SHOWN:]))


def grid(row: StreamRow) -> Grid:
    """The facts under each other."""
    table = Grid.grid(padding=(0, 2, 0, 0))
    table.add_column(style=looks.DIM, no_wrap=True)
    table.add_column(overflow="fold")
    for name, fact in facts(row):
        table.add_row(Text(name), fact)
    return table


def facts(row: StreamRow) -> Iterator[tuple[str, Text]]:
    """What is known, the most urgent first."""
    if row.why:
        yield "why", Text(row.why, style=looks.BAD if row.state in ("failed", "STALLED") else looks.WARN)
    if row.settings:
        yield "settings", Text(row.settings)
    yield "loss", losses(row)
    if row.heldout is not None:
        yield (
            "held-out",
            against_base(units.loss(row.heldout), units.loss(row.base_heldout), row.heldout, row.base_heldout),
        )
    if row.exact is not None:
        yield "exact", against_base(units.percent(row.exact), units.percent(row.base_exact), row.base_exact, row.exact)
    yield "speed", speed(row)
    yield "saved", checkpoints(row)
    yield "held by", holder(row)
    if row.verdict:
        good = row.verdict.startswith("SUCCESS")
        bad = row.verdict.startswith("FAIL")
        yield "verdict", Text(row.verdict, style=looks.GOOD if good else looks.BAD if bad else looks.WARN)


def losses(row: StreamRow) -> Text:
    text = Text.assemble(units.loss(row.first_loss), (" → ", looks.DIM), (units.loss(row.loss), "bold"))
    text.append("  best ", looks.DIM).append(units.loss(row.best_loss))
    if row.grad_norm is not None:
        text.append("  grad ", looks.DIM).append(f"{row.grad_norm:.3g}")
    return text


def against_base(value: str, base: str, lower: float | None, higher: float | None) -> Text:
    """A figure beside the bare base's; green where `lower` is indeed the lower one."""
    if lower is None or higher is None:
        return Text(value, style="bold")
    style = looks.GOOD if lower < higher else looks.BAD
    return Text.assemble((value, f"bold {style.removeprefix('bold ')}"), ("  base ", looks.DIM), base)


def speed(row: StreamRow) -> Text:
    known = (
        (row.tokens_per_second, f"{units.count(row.tokens_per_second)} tok/s"),
        (row.memory_bytes, units.size(row.memory_bytes)),
        (row.trainable, f"{units.count(row.trainable)} weights"),
    )
    return Text(" · ".join(said for value, said in known if value is not None) or units.NONE)


def checkpoints(row: StreamRow) -> Text:
    """The newest ones, and how many before them."""
    newest = " ".join(str(step) for step in row.checkpoints[-CHECKPOINTS_SHOWN:])
    before = len(row.checkpoints) - CHECKPOINTS_SHOWN
    text = Text(newest or "no checkpoint yet", style="" if newest else looks.DIM)
    return text.append(f"  and {before} before", looks.DIM) if before > 0 else text


def holder(row: StreamRow) -> Text:
    if not row.worker:
        return Text("nobody", style=looks.DIM)
    text = Text(row.worker)
    if row.token is not None:
        text.append(" · token ", looks.DIM).append(str(row.token))
    if row.lease_left_seconds is not None:
        style = looks.BAD if row.lease_left_seconds < 10 else ""
        text.append(" · lease ", looks.DIM).append(units.duration(row.lease_left_seconds), style)
    return text
