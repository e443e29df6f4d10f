"""A table of fixed columns that redraws only the cells that changed, for any kind of rows.

Textual's DataTable redraws itself completely for each changed cell, which costs too much at 4 Hz and 64 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui import strips

GAP = 1
"""Cells between two columns."""
ROOMY_GAP = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    title: str
    width: int
    """Wanted width in cells."""
    rank: int = 0
    """If there is no room, columns with the highest rank are left out first; 0 is never left out."""
    grow: int = 0
    """Additional cells that it can use."""
    right: bool = False
    least: int = 0
    """Width to which it may be cut before it is left out; 0: only whole."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A column with its position on the line."""

    column: Column
    x: int
    width: int


def fit(columns: Sequence[Column], width: int) -> list[Placed]:
    """The columns that fit, in their order; the room left over is divided among those that grow."""
    kept = list(columns)
    while len(kept) > 1 and _needs(kept, GAP) > width and any(column.rank > 0 for column in kept):
        last, excess = max(reversed(kept), key=lambda column: column.rank), _needs(kept, GAP) - width
        if last.least and last.width - last.least >= excess:
            kept[kept.index(last)] = replace(last, width=last.width - excess)
        else:
            kept.remove(last)
    if (excess := _needs(kept, GAP) - width) > 0:  # none of them is left out: the widest is cut
        widest = max(kept, key=lambda column: column.width)
        kept[kept.index(widest)] = replace(widest, width=max(1, widest.width - excess))
    gap = ROOMY_GAP if _needs(kept, ROOMY_GAP) + sum(c.grow for c in kept) // 2 <= width else GAP
    spare = max(0, width - _needs(kept, gap))
    placed: list[Placed] = []
    x = 0
    for column in kept:
        later = sum(c.grow for c in kept[len(placed) :])
        extra = min(column.grow, spare * column.grow // later) if later else 0
        spare -= extra
        placed.append(Placed(column, x, column.width + extra))
        x += column.width + extra + gap
    return placed


def _needs(columns: Sequence[Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)


class Table(ScrollView, can_focus=True):
    """Rows of rich text under a fixed head, with one row under the cursor."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"table--cursor", "table--header"}
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "move(-10)", "page up", show=False),
        Binding("pagedown", "move(10)", "page down", show=False),
        Binding("home,g", "move(-100000)", "first", show=False),
        Binding("end,G", "move(100000)", "last", show=False),
    ]

    cursor: reactive[int] = reactive(0)

    @dataclass
    class Moved(Message):
        """The cursor moved to another row."""

        table: Table
        key: str

        @property
        def control(self) -> Table:
            return self.table

    @dataclass
    class Chosen(Moved):
        """A row was clicked twice."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        with_cursor: bool = True,
        empty: str = "",
        id: str,  # noqa: A002 (Textual's name)
        classes: str = "",
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.columns = tuple(columns)
        self.placed: list[Placed] = []
        self.keys: list[str] = []
        self.cells: list[dict[str, Text]] = []
        self.with_cursor = with_cursor
        self.empty = empty

    # ---- what is shown

    def show_rows(self, keys: Sequence[str], cells: Sequence[dict[str, Text]], selected: str = "") -> None:
        """Show these rows; only what differs is drawn again."""
        if list(keys) != self.keys or not keys:
            self.keys, self.cells = list(keys), list(cells)
            self.virtual_size = Size(self.scrollable_content_region.width, len(keys) + 1)
            self.refresh(layout=True)
        else:
            for i, (old, new) in enumerate(zip(self.cells, cells, strict=True)):
                self._refresh_changed(i, old, new)
            self.cells = list(cells)
        if selected in self.keys:
            self.cursor = self.keys.index(selected)

    def _refresh_changed(self, i: int, old: dict[str, Text], new: dict[str, Text]) -> None:
        y = i + 1 - self.scroll_offset.y
        if 0 < y < self.size.height:
            for at in self.placed:
                if old[at.column.name] != new[at.column.name]:
                    self.refresh(Region(at.x, y, at.width, 1))

    def widen(self, columns: Sequence[Column]) -> None:
        """Use other columns, for example because names grew."""
        if tuple(columns) != self.columns:
            self.columns = tuple(columns)
            self.place()

    def place(self) -> None:
        self.placed = fit(self.columns, self.scrollable_content_region.width)
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self.keys) + 1)
        self.place()
        self.fill()

    def fill(self) -> None:
        """Make the cells again, in tables whose cells depend on the widths."""

    def width_of(self, name: str) -> int:
        """The width of a column; 0 if it was left out."""
        return next((at.width for at in self.placed if at.column.name == name), 0)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(2, len(self.keys) + 1)

    def render_line(self, y: int) -> Strip:
        index = self.scroll_offset.y + y - 1
        if y == 0:
            heads = {c.name: Text(c.title) for c in self.columns}
            return self._strip(heads, self.get_component_rich_style("table--header"))
        if not self.keys and y == 1:
            return self._strip({}, self.rich_style, Text("   " + self.empty, style="italic dim"))
        if index >= len(self.keys):
            return Strip.blank(self.scrollable_content_region.width, self.rich_style)
        on_cursor = self.with_cursor and index == self.cursor
        return self._strip(
            self.cells[index], self.get_component_rich_style("table--cursor") if on_cursor else self.rich_style
        )

    def _strip(self, cells: dict[str, Text], style: Style, instead: Text | None = None) -> Strip:
        segments: list[Segment] = []
        console, x = self.app.console, 0
        for at in self.placed if instead is None else ():
            segments.append(Segment(" " * (at.x - x)))
            segments += strips.segments(fitted(cells[at.column.name], at), console)
            x = at.x + at.width
        if instead is not None:
            segments += strips.segments(instead, console)
        return Strip(segments).apply_style(style).adjust_cell_length(self.scrollable_content_region.width, style)

    # ---- the cursor

    def watch_cursor(self, old: int, new: int) -> None:
        for index in (old, new):
            self.refresh(Region(0, index + 1 - self.scroll_offset.y, self.scrollable_content_region.width, 1))
        if new < self.scroll_offset.y:
            self.scroll_to(y=new, animate=False)
        elif self.size.height > 1 and new - self.scroll_offset.y >= self.size.height - 1:
            self.scroll_to(y=new - self.size.height + 2, animate=False)

    def action_move(self, by: int) -> None:
        if self.with_cursor:
            self._go(self.cursor + by)
        else:
            self.scroll_to(y=min(self.max_scroll_y, max(0, self.scroll_offset.y + by)), animate=False)

    def _go(self, index: int) -> None:
        if self.keys and self.with_cursor:
            self.cursor = min(len(self.keys) - 1, max(0, index))
            self.post_message(self.Moved(self, self.keys[self.cursor]))

    def on_click(self, event: events.Click) -> None:
        index = self.scroll_offset.y + event.y - 1
        if event.y > 0 and index < len(self.keys):
            self._go(index)
            if event.chain == 2 and self.with_cursor:
                self.post_message(self.Chosen(self, self.keys[index]))


def fitted(text: Text, at: Placed) -> Text:
    """The text at exactly the column's width."""
    text = text.copy()
    text.no_wrap = True
    if text.cell_len > at.width:
        text.truncate(at.width, overflow="ellipsis")
    text.align("right" if at.column.right else "left", at.width)
    return text
