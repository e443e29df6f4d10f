"""A line of parts, of which the least needed are left out if there is no room; used for the first and the last line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.strip import Strip
from textual.widget import Widget

from tui.strips import strip


@dataclass(frozen=True, slots=True)
class Part:
    """One part."""

    text: Text
    rank: int = 0
    """If there is no room, parts with the highest rank are left out first; 0 is never left out."""
    right: bool = False


def compose(parts: Sequence[Part], width: int, gap: str) -> Text:
    """The parts that fit, one group at the left and one at the right."""
    kept = list(parts)
    while len(kept) > 1 and _needs(kept, gap) > width and any(part.rank for part in kept):
        kept.remove(max(reversed(kept), key=lambda part: part.rank))
    left = Text(gap).join(part.text for part in kept if not part.right)
    right = Text(gap).join(part.text for part in kept if part.right)
    room = width - left.cell_len - right.cell_len
    line = Text.assemble(left, " " * max(0, room), right, no_wrap=True, end="")
    line.truncate(width, overflow="ellipsis")
    return line


def _needs(parts: Sequence[Part], gap: str) -> int:
    return sum(part.text.cell_len for part in parts) + len(gap) * (len(parts) - 1)


class Line(Widget):
    """One line of parts."""

    DEFAULT_CSS = "Line { height: 1; }"
    ALLOW_SELECT = False

    def __init__(self, gap: str = "  ", **rest: str) -> None:
        super().__init__(id=rest.get("id"))
        self.gap = gap
        self.parts: list[Part] = []

    def show_parts(self, parts: list[Part]) -> None:
        if parts != self.parts:
            self.parts = parts
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        return strip(compose(self.parts, width, self.gap), self.app.console, width, self.rich_style)
