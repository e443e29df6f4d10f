"""The losses of the marked streams in one plot; drawn at most once a second, and only while it is visible."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence

from rich.text import Text
from textual import events
from textual.strip import Strip

from swarm import figures, units
from swarm.views.snapshot import StreamRow
from tui import looks
from tui.canvas import Series, plot
from tui.panes.pane import Pane
from tui.strips import strip
from tui.view import View

LOSS, HELD_OUT, MODE = "loss", "eval_loss", "mode"
PERIOD_SECONDS = 1.0
SMOOTHING = 0.8
"""Weight of the running mean; curves of fewer than `FEW` points are not smoothed."""
FEW = 12
WIDE_RATIO = 50.0
"""If the largest value is more than this many times the smallest, the axis is logarithmic by default."""


class Curves(Pane):
    """A plot with a legend on its first line."""

    ALLOW_SELECT = False

    def __init__(self, clock: Callable[[], float] = time.monotonic, **rest: str) -> None:
        super().__init__(id=rest.get("id"), classes=rest.get("classes"))
        self.clock = clock
        self.view = View()
        self.rows: tuple[StreamRow, ...] = ()
        self.lines: list[Text] = []
        self.drawn_at_seconds = -PERIOD_SECONDS
        self.drawn_choice: tuple[object, ...] = ()
        self.drawn_points: list[object] = []
        self.times_drawn = 0
        self.is_log = False
        """Whether the axis that is drawn is logarithmic."""

    def show(self, view: View) -> None:
        """Show the marked streams: new points are drawn once a second, a choice of the person at once."""
        self.show_only(view, view.overlaid)

    def show_only(self, view: View, rows: tuple[StreamRow, ...]) -> None:
        self.view, self.rows = view, rows
        late = self.clock() - self.drawn_at_seconds >= PERIOD_SECONDS
        chosen = self.chosen() != self.drawn_choice
        if self.size.height and self.is_on_screen and (chosen or (late and self.points() != self.drawn_points)):
            self.draw()

    def chosen(self) -> tuple[object, ...]:
        """The person's choices that change the plot."""
        view = self.view
        return (view.log_y, view.smoothed, view.figure, view.by_time, [row.name for row in self.rows])

    def points(self) -> list[object]:
        return [(row.curve(self.view.figure), row.curve(held_out_of(self.view.figure))) for row in self.rows]

    @property
    def is_on_screen(self) -> bool:
        return self.display and self.screen is self.app.screen

    def on_resize(self, event: events.Resize) -> None:
        self.draw()

    def draw(self) -> None:
        self.drawn_at_seconds, self.times_drawn = self.clock(), self.times_drawn + 1
        self.drawn_choice, self.drawn_points = self.chosen(), self.points()
        view, rows = self.view, self.rows
        width, height = self.size
        series = [curve(view, row) for row in rows]
        self.is_log = log = is_wide(series) if view.log_y is None else view.log_y
        label = units.duration if view.by_time else units.count
        drawn = plot(series, width, height - 1, log=log, label=label, names=mode_names(view, rows))
        known = any(one.points or one.marks for one in series)
        what = figures.of(view.figure).label
        self.lines = [legend(view, rows, width), *drawn] if drawn else waiting(what, width, height, known=known)
        self.border_title = title(view, log=log)
        self.border_subtitle = "× held-out" if any(one.marks for one in series) else ""
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        text = self.lines[y] if y < len(self.lines) else Text()
        return strip(text, self.app.console, width, self.rich_style)


def title(view: View, *, log: bool) -> str:
    smoothed = view.smoothed and held_out_of(view.figure)
    words = [figures.of(view.figure).label, "smoothed" if smoothed else "as measured"]
    words += ["over time"] if view.by_time else []
    return " · ".join([*words, "log"] if log else words)


def is_wide(series: Sequence[Series]) -> bool:
    """Whether the values span so much that a linear axis would show only the first steps."""
    values = [y for one in series for _, y in one.points if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) > WIDE_RATIO * min(values)


def curve(view: View, row: StreamRow) -> Series:
    """A stream's figure over its steps or its time; beside losses the held-out ones as marks."""
    measured = row.curve(view.figure)
    values = [y for _, y in measured]
    held_out = held_out_of(view.figure)
    if view.smoothed and held_out and len(values) >= FEW:
        values = units.smooth(values, SMOOTHING)
    points = [(across(view, row, x), y) for (x, _), y in zip(measured, values, strict=True)]
    marks = [(across(view, row, x), y) for x, y in row.curve(held_out)]
    place = view.place(row.name)
    return Series(points, looks.hue(place), marks, looks.shape(place))


def held_out_of(figure: str) -> str:
    """The held-out loss beside a loss, of a stream or of one of its two models; nothing beside other figures."""
    prefix = figure.removesuffix(LOSS)
    return prefix + HELD_OUT if figure.endswith(LOSS) else ""


def mode_names(view: View, rows: tuple[StreamRow, ...]) -> tuple[str, ...]:
    """What a controller's modes are called, where those of all streams that have any are called alike."""
    named = {row.modes for row in rows if row.curve(view.figure)}
    return named.pop() if view.figure.endswith(MODE) and len(named) == 1 else ()


def across(view: View, row: StreamRow, step: int) -> float:
    """Where a step stands on the axis: at its number, or at the seconds from the first step to it (or the next one known)."""
    if not view.by_time or not row.times:
        return float(step)
    at = bisect_left(row.times, step, key=lambda point: point[0])
    return row.times[min(at, len(row.times) - 1)][1]


def legend(view: View, rows: tuple[StreamRow, ...], width: int) -> Text:
    """The streams by colour: those that have a curve."""
    line = Text(no_wrap=True)
    for row in (row for row in rows if view.figure == LOSS or row.curve(view.figure)):
        place = view.place(row.name)
        line.append(f"{looks.shape(place)} ", looks.hue(place))
        line.append(f"{row.name}  ")
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line


def waiting(what: str, width: int, height: int, *, known: bool) -> list[Text]:
    """The text in place of a plot; `known`: there are values, but no room to draw them."""
    text = Text("no room for curves" if known else f"no {what} yet", style=f"italic {looks.DIM}")
    text.align("center", width)
    return [*[Text()] * (max(0, height - 1) // 2), text]
