"""All that the snapshot holds of one stream, as named facts."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text
from textual.widgets import Static

from swarm import figures, units
from swarm.views.snapshot import StreamRow
from tui import looks
from tui.panes.log import coloured
from tui.panes.pane import Pane
from tui.view import View

CHECKPOINTS_SHOWN = 6
ENTRIES_SHOWN = 12
LABEL_CELLS = 12
"""Room for the name of a fact; longer ones are cut."""


class Detail(Static, Pane):
    """The selected stream."""

    shown: tuple[StreamRow | None, tuple[str, ...], tuple[str, ...]] | None = None

    def show(self, view: View) -> None:
        row = view.row
        entries = about(row) if row else ()
        printed = printed_by(view, row) if row else ()
        if (row, entries, printed) == self.shown:
            return
        self.shown = (row, entries, printed)
        if row is None:
            self.border_title = "no stream"
            self.update("")
            return
        self.border_title = Text.assemble(
            (f"{looks.shape(view.place(row.name))} ", looks.hue(view.place(row.name))),
            row.name,
            " · ",
            (row.state, looks.STATES.get(row.state, "")),
        )
        self.update(Group(grid(row), Text(), *printed_text(row, printed), *map(coloured, entries)))


def about(row: StreamRow) -> tuple[str, ...]:
    """The stream's newest entries, the newest first, so that it is visible in a small pane."""
    return tuple(line.replace(f" {row.name}/", " ", 1) for line in reversed(row.tail[-ENTRIES_SHOWN:]))


def printed_by(view: View, row: StreamRow) -> tuple[str, ...]:
    """The last lines of the worker that has, or last had, one of its tasks."""
    return next((worker.lines for worker in view.snapshot.workers if worker.name == row.last_worker), ())


def printed_text(row: StreamRow, lines: tuple[str, ...]) -> Iterator[Text]:
    """Before the entries, which stand in the log as well: a small pane shows the first lines only."""
    if lines:
        yield Text(f"{row.last_worker} printed:", style=looks.DIM)
        yield from (Text(line, style=looks.DIM, no_wrap=True, overflow="ellipsis") for line in lines)
        yield Text()


def grid(row: StreamRow) -> Grid:
    """The facts, one per line."""
    table = Grid.grid(padding=(0, 2, 0, 0))
    table.add_column(style=looks.DIM, no_wrap=True, max_width=LABEL_CELLS)
    table.add_column(overflow="fold")
    for name, fact in facts(row):
        table.add_row(Text(name), fact)
    return table


def facts(row: StreamRow) -> Iterator[tuple[str, Text]]:
    """The known facts, the most urgent first."""
    if row.why:
        yield "why", Text(row.why, style=looks.BAD if row.state in ("failed", "STALLED") else looks.WARN)
    if row.settings:
        yield "settings", Text(row.settings)
    yield "loss", losses(row)
    for name in figures.with_goal():
        if name in row.figures:
            yield figures.of(name).label, against_base(row, name)
    yield "speed", speed(row)
    yield "saved", checkpoints(row)
    yield "held by", holder(row)
    if row.verdict:
        good = row.verdict.startswith("SUCCESS")
        bad = row.verdict.startswith("FAIL")
        yield "verdict", Text(row.verdict, style=looks.GOOD if good else looks.BAD if bad else looks.WARN)
    for name, value in row.figures.items():
        if name not in SHOWN_ABOVE and name not in figures.with_goal():
            yield figures.of(name).label, Text(mode_name(row, name, value) or figures.of(name).text(value))


def mode_name(row: StreamRow, name: str, value: float) -> str:
    """What a mode is called; nothing of other figures."""
    return row.modes[int(value)] if name.endswith("mode") and value < len(row.modes) else ""


SHOWN_ABOVE = frozenset(
    {"loss", "first_loss", "best_loss", "grad_norm", "tokens_per_second", "memory_bytes", "peak_bytes", "learning_rate"}
)
"""Figures that stand with others."""


def losses(row: StreamRow) -> Text:
    first, loss, best = (units.loss(row.figure(name)) for name in ("first_loss", "loss", "best_loss"))
    text = Text.assemble(first, (" → ", looks.DIM), (loss, "bold"))
    text.append("  best ", looks.DIM).append(best)
    if row.mean_losses[1] is not None:
        text.append("  mean of the last twentieth ", looks.DIM).append(units.loss(row.mean_losses[1]))
    if (norm := row.figure("grad_norm")) is not None:
        text.append("  grad ", looks.DIM).append(f"{norm:.3g}")
    return text


def against_base(row: StreamRow, name: str) -> Text:
    """A figure beside the bare base's; green where it is the better one."""
    about, value, base = figures.of(name), row.figure(name), row.base.get(name)
    if value is None or base is None:
        return Text(about.text(value), style="bold")
    style = looks.beside_base(name, value, base)
    return Text.assemble(
        (about.text(value), f"bold {style.removeprefix('bold ')}"), ("  base ", looks.DIM), about.text(base)
    )


def speed(row: StreamRow) -> Text:
    pace, memory = row.figure("tokens_per_second"), row.memory_bytes
    known = (
        (pace, f"{units.count(pace)} tok/s"),
        (memory, units.size(memory)),
        (row.trainable, f"{units.count(row.trainable)} weights"),
    )
    return Text(" · ".join(text for value, text in known if value is not None) or units.NONE)


def checkpoints(row: StreamRow) -> Text:
    """The newest checkpoints, and the number of earlier ones."""
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
