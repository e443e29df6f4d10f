"""The leaderboard: the streams by the figure that the run promotes by; shown by itself where trials compete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from swarm.views import leaderboard
from swarm.views.snapshot import Place
from tui import looks
from tui.panes.pane import Pane
from tui.table import Column, Table
from tui.view import View

COLUMNS = (
    Column("rank", "", 2, right=True),
    Column("mark", "", 1, rank=2),
    Column("name", "stream", 6),
    Column("step", "step/of", 7, rank=1, right=True),
    Column("figure", "figure", 6, right=True),
    Column("cost", "cost", 4, rank=3, right=True),
    Column("state", "state", 5, grow=40),
)
NAME_CELLS = 20
"""A longer name is cut."""


class Leaders(Table, Pane):
    """The streams of the run, the best first."""

    def __init__(self, *, id: str, classes: str = "") -> None:  # noqa: A002 (Textual's name)
        super().__init__(COLUMNS, with_cursor=False, empty="fewer than two are measured", id=id, classes=classes)

    def show(self, view: View) -> None:
        self.screen.set_class(view.shows_leaders, "-leaders")
        board = view.snapshot.leaderboard
        self.border_title = "leaderboard"
        self.border_subtitle = Text(leaderboard.title(board) if board.places else "")
        rows = [cells(view, one, board.metric) for one in board.places]
        self.widen(tuple(as_wide_as(column, rows) for column in COLUMNS))
        self.show_rows([one.stream for one in board.places], rows)


def as_wide_as(column: Column, rows: Sequence[dict[str, Text]]) -> Column:
    """The column with room for its content."""
    widest = max((row[column.name].cell_len for row in rows), default=0)
    return replace(column, width=max(column.width, min(widest, NAME_CELLS)))


def cells(view: View, one: Place, metric: str) -> dict[str, Text]:
    """One row."""
    place = view.place(one.stream)
    rank, name, step, figure, cost, state = leaderboard.words(one, metric)
    row = next(row for row in view.snapshot.streams if row.name == one.stream)
    return {
        "rank": Text(rank, style=looks.WARN if one.rank == 1 else looks.DIM),
        "mark": Text(looks.shape(place), style=looks.hue(place)),
        "name": Text(name, style=looks.STRONG if name == view.selected else ""),
        "step": Text(step),
        "figure": Text(figure, style=looks.beside_base(metric, one.value, row.base.get(metric))),
        "cost": Text(cost, style=looks.DIM),
        "state": Text(state, style=looks.STATES.get(state.partition(" ")[0], "")),
    }
