"""Draws curves in braille with axes, as lines of rich text; pure, without streams or Textual."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from swarm import units

BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a cell, [row][column] (Unicode 6.2, block U+2800)."""
GUTTER = 7
"""Cells of the labels left of the axis."""
AXIS_STYLE = "#5c6773"


@dataclass(frozen=True, slots=True)
class Series:
    """One curve."""

    points: Sequence[tuple[float, float]]
    style: str
    marks: Sequence[tuple[float, float]] = ()
    """Single points, drawn as a cross each."""
    end: str = ""
    """What is drawn at its newest point."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The ranges of x and y that are shown, and the number of cells."""

    width: int
    height: int
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    log: bool
    names: Sequence[str] = ()
    """What the values 0, 1 and so on are called, where they are not numbers."""

    def dot(self, x: float, y: float) -> tuple[int, int]:
        """Column and row of a dot, from the upper left; two by four dots fill a cell."""
        across = (x - self.x_low) / (self.x_high - self.x_low)
        down = 1 - (self.lift(y) - self.y_low) / (self.y_high - self.y_low)
        return round(across * (self.width * 2 - 1)), round(down * (self.height * 4 - 1))

    def lift(self, y: float) -> float:
        return math.log10(y) if self.log else y

    def ticks(self) -> dict[int, str]:
        """Names, or round values, by the row of cells in which they stand."""
        wanted = max(3, self.height // 2 if self.height < 12 else self.height // 3)
        values = decades(self.y_low, self.y_high, wanted) if self.log else rounds(self.y_low, self.y_high, wanted)
        labels: Iterable[tuple[float, str]] = enumerate(self.names) if self.names else ((v, tick(v)) for v in values)
        return {self.dot(self.x_low, value)[1] // 4: label for value, label in labels}


@dataclass(slots=True)
class Grid:
    """The cells drawn so far."""

    width: int
    height: int
    dots: dict[tuple[int, int], int] = field(default_factory=dict)
    styles: dict[tuple[int, int], str] = field(default_factory=dict)
    glyphs: dict[tuple[int, int], str] = field(default_factory=dict)

    def dot(self, x: int, y: int, style: str) -> None:
        cell = (y // 4, x // 2)
        self.dots[cell] = self.dots.get(cell, 0) | BRAILLE[y % 4][x % 2]
        self.styles[cell] = style

    def mark(self, x: int, y: int, glyph: str, style: str) -> None:
        cell = (y // 4, x // 2)
        self.glyphs[cell], self.styles[cell] = glyph, style

    def row(self, y: int) -> Text:
        text = Text(no_wrap=True)
        for x in range(self.width):
            cell = (y, x)
            glyph = self.glyphs.get(cell) or (chr(0x2800 + self.dots[cell]) if cell in self.dots else " ")
            text.append(glyph, self.styles.get(cell, ""))
        return text


def plot(
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    log: bool = False,
    label: Callable[[float], str] = units.count,
    names: Sequence[str] = (),
) -> list[Text]:
    """The curves with their axes on `height` lines of `width` cells; an empty list if there is no room or no point."""
    frame = framed(series, width - GUTTER - 1, height - 2, log=log, names=names)
    if frame is None:
        return []
    grid = Grid(frame.width, frame.height)
    for one in series:
        draw(grid, frame, one)
    return [*_rows(grid, frame), *_below(frame, label)]


def framed(series: Sequence[Series], width: int, height: int, *, log: bool, names: Sequence[str] = ()) -> Frame | None:
    """The ranges that hold every point; None if there is no room or no point."""
    points = [p for one in series for p in (*shown(one.points, log), *shown(one.marks, log))]
    if not points or width < 4 or height < 2:
        return None
    xs = [x for x, _ in points]
    ys = [math.log10(y) if log else y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = (0.0, len(names) - 1.0) if names else (min(ys), max(ys))
    if y_low == y_high == 0 and not log:  # nothing but zeros: above the axis there is room, below it no value can be
        y_high = 1.0
    pad = (y_high - y_low) * 0.04 or abs(y_high) * 0.1 or 1.0
    return Frame(width, height, x_low, x_high if x_high > x_low else x_low + 1, y_low - pad, y_high + pad, log, names)


def shown(points: Iterable[tuple[float, float]], log: bool) -> Iterator[tuple[float, float]]:
    """The points that can be drawn: finite, and positive on a logarithmic axis."""
    return ((x, y) for x, y in points if math.isfinite(y) and (y > 0 or not log))


def draw(grid: Grid, frame: Frame, one: Series) -> None:
    """One curve: a line through its points, then its marks."""
    places = [frame.dot(x, y) for x, y in shown(one.points, frame.log)]
    for start, end in zip(places, places[1:] or places, strict=False):
        for column, row in line(start, end):
            grid.dot(column, row, one.style)
    for x, y in shown(one.marks, frame.log):
        grid.mark(*frame.dot(x, y), "×", one.style)
    if one.end and places:
        grid.mark(*places[-1], one.end, one.style)


def line(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The dots from one place to another."""
    (x0, y0), (x1, y1) = start, end
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    return ((round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)) for i in range(steps + 1))


def rounds(low: float, high: float, wanted: int) -> list[float]:
    """Round values from `low` to `high`, about as many as wanted: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def decades(low: float, high: float, wanted: int) -> list[float]:
    """The same on a logarithmic axis, whose ends are exponents: 1, 2, 5 of each decade, or fewer, or linear steps where it is short."""
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [f * 10.0**n for n in range(math.floor(low), math.ceil(high) + 1) for f in factors]
        inside = [value for value in values if low <= math.log10(value) <= high]
        if len(inside) <= wanted + 1:
            break
    return inside if len(inside) > 1 else rounds(10**low, 10**high, wanted)


def tick(value: float) -> str:
    """A round value in the room of a label."""
    text = f"{value:.4g}"
    if len(text) < GUTTER:
        return text
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def _rows(grid: Grid, frame: Frame) -> Iterator[Text]:
    ticks = frame.ticks()
    for y in range(frame.height):
        label = ticks.get(y, "")
        yield Text.assemble((f"{label:>{GUTTER - 1}} {'┤' if label else '│'}", AXIS_STYLE), grid.row(y), no_wrap=True)


def _below(frame: Frame, label: Callable[[float], str]) -> list[Text]:
    """The axis and its labels: left, middle, right."""
    left, right = label(frame.x_low), label(frame.x_high)
    middle = label((frame.x_low + frame.x_high) / 2)
    middle = "" if middle in {left, right} else middle
    room = frame.width - len(left) - len(right)
    labels = left + (middle.center(room) if room > len(middle) + 2 else " " * max(1, room)) + right
    rule = " " * GUTTER + "└" + "─" * frame.width
    return [Text(rule, AXIS_STYLE, no_wrap=True), Text(" " * (GUTTER + 1) + labels, AXIS_STYLE, no_wrap=True)]
