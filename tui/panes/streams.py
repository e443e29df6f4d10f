"""The table of streams: one row each, with progress and figures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from rich.text import Text

from swarm import figures, units
from swarm.views.reasons import short, work
from swarm.views.snapshot import StreamRow
from tui import looks
from tui.panes.pane import Pane
from tui.table import Column, Table
from tui.view import View

NAME_CELLS = range(7, 21)
"""Widths of the column of names."""
WHY_CELLS = range(9, 25)
"""Widths of the column of reasons; it stays if something is wrong, and other columns are left out."""
OVER = frozenset({"done", "promoted", "stopped", "failed", "wait"})
"""States in which no step is expected."""
WRONG = frozenset({"failed", "STALLED"})
WRONG_RANKS = {"why": 0, "bar": 2, "loss": 1}
WRONG_CELLS = 38
"""Room for a file, a line and what is wrong with it."""
COLUMNS = (
    Column("mark", "", 3),
    Column("name", "stream", 7),
    Column("state", "state", 8),
    Column("bar", "", 6, grow=10),
    Column("step", "step/of", 7, right=True),
    Column("loss", "loss", 5, right=True),
    Column("spark", "", 8, rank=4, grow=12),
    Column("best_loss", "best", 5, rank=7, right=True),
    Column("eval_loss", "held-out", 8, rank=1, right=True),
    Column("exact_match", "exact", 6, rank=9, right=True),
    Column("learning_rate", "lr", 6, rank=5, right=True),
    Column("tokens_per_second", "tok/s", 5, rank=2, right=True),
    Column("memory", "mem", 7, rank=8, right=True),
    Column("device", "dev", 4, rank=6, grow=2),
    Column("eta", "eta", 5, rank=1, right=True),
    Column("why", "why", WHY_CELLS.start, rank=3, grow=60, least=WHY_CELLS.start),
)


ALWAYS = ("best_loss", "learning_rate")
"""Figures that always have a column."""


class Streams(Table, Pane):
    """The streams of the run."""

    def __init__(self, *, id: str, classes: str = "") -> None:  # noqa: A002 (Textual's name)
        super().__init__(COLUMNS, empty="no stream yet", id=id, classes=classes)

    view = View()

    def show(self, view: View) -> None:
        self.view = view
        self.empty = f"no stream matches '{view.words}' (escape: all)" if view.words else "no stream yet"
        self.widen(columns(view))
        self.fill()

    def fill(self) -> None:
        view, row = self.view, self.view.row
        widths = Widths(self.width_of("bar"), self.width_of("spark"), self.width_of("why"))
        selected = row.name if row else ""
        cells = [drawn(view, row, row.name == selected, widths) for row in view.rows]
        self.show_rows([row.name for row in view.rows], cells, selected)


class Widths(NamedTuple):
    """Widths of the columns whose content depends on them."""

    bar: int
    spark: int
    why: int


def columns(view: View) -> tuple[Column, ...]:
    """The columns, some of them as wide as their content."""
    names = max((len(row.name) for row in view.snapshot.streams), default=0)
    steps = max((len(str(row.steps)) for row in view.snapshot.streams), default=0)
    whys = max((len(row.why or work(row)) for row in view.rows), default=0)
    widths = {
        "name": min(max(names, NAME_CELLS.start), NAME_CELLS.stop - 1),
        "step": max(7, 2 * steps + 1),
        "why": min(max(whys, WHY_CELLS.start), WHY_CELLS.stop - 1),
    }
    is_wrong = any(row.why and (row.state in WRONG or is_waited_for(row)) for row in view.rows)
    ranks = WRONG_RANKS if is_wrong else {}
    if is_wrong:
        widths["why"] = min(max(whys, WHY_CELLS.start), WRONG_CELLS)
    wide = tuple(
        replace(column, width=widths.get(column.name, column.width), rank=ranks.get(column.name, column.rank))
        for column in COLUMNS
    )
    at = next(i for i, column in enumerate(wide) if column.name == "learning_rate")
    return (*wide[:at], *more_columns(view), *wide[at:])


def is_waited_for(row: StreamRow) -> bool:
    """Whether its promotion waits for a person."""
    return row.state == "done" and row.why.startswith("waits for ")


def more_columns(view: View) -> tuple[Column, ...]:
    """A column for each further figure by which streams are compared."""
    known = {column.name for column in COLUMNS}
    names = [name for name in figures.with_goal() if name not in known]
    there = [name for name in names if any(name in row.figures for row in view.rows)]
    return tuple(
        Column(name, label := figures.of(name).label, max(7, len(label)), rank=8, right=True) for name in there
    )


def drawn(view: View, row: StreamRow, selected: bool, widths: Widths) -> dict[str, Text]:
    """One row."""
    colour = looks.hue(view.place(row.name))
    state = looks.STATES.get(row.state, "")
    pace = row.figure("tokens_per_second")
    over = row.state in OVER
    shape = looks.shape(view.place(row.name)) if row.name in view.marks else "·"
    return {
        "mark": Text.assemble(
            "▸" if selected else " ",
            (shape, colour if shape != "·" else looks.FAINT),
            ("★" if row.name == view.snapshot.leader else " ", looks.WARN),
        ),
        "name": Text(row.name, style=looks.STRONG if selected else ""),
        "state": Text(row.state, style=state),
        "bar": progress(row, colour, widths.bar),
        "step": Text(f"{row.step}/{row.steps or '?'}"),
        **{name: measured(row, name) for name in (*ALWAYS, *figures.with_goal())},
        "loss": number(row.figure("loss"), units.loss, "bold"),
        "spark": Text(units.spark([y for _, y in row.curve("loss")], widths.spark), style=colour),
        "tokens_per_second": number(pace, units.count, "" if pace or over else looks.BAD),
        "memory": number(row.memory_bytes, units.size),
        "device": Text(row.device or units.NONE),
        "eta": number(None if over else row.eta_seconds, units.duration),
        "why": reason(row, widths.why),
    }


def progress(row: StreamRow, colour: str, width: int) -> Text:
    """The bar, in the stream's colour."""
    done, left = units.bar(units.share(row.step, row.steps), width)
    return Text.assemble((done, colour), (left, looks.TROUGH))


def number(value: float | None, pretty: Callable[[float | None], str], style: str = "") -> Text:
    """A figure; dim if it is unknown, red if it is not finite."""
    odd = value is not None and not math.isfinite(value)
    return Text(pretty(value), style=looks.DIM if value is None else looks.BAD if odd else style)


def measured(row: StreamRow, name: str) -> Text:
    """A figure; green with a tick if it is better than the base model's, else red with a cross."""
    value, about = row.figure(name), figures.of(name)
    style = looks.beside_base(name, value, row.base.get(name))
    text = number(value, about.text, style)
    return text.append(" ✓" if style == looks.GOOD else " ✗") if style else text


def reason(row: StreamRow, width: int) -> Text:
    """The reason of its state; for work without steps how far it is."""
    if not row.why and (done := work(row)):
        return Text(done, style=looks.DIM)
    style = looks.BAD if row.state in WRONG else looks.WARN if is_waited_for(row) else looks.DIM
    return Text(short(row.why, max(1, width)), style=style)
