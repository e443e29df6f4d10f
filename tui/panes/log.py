"""Entries of the shared log, one line each, coloured by kind; it follows the end until a person scrolls up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui import looks
from tui.panes.pane import Pane
from tui.strips import strip
from tui.view import View

ENTRY = re.compile(r"^(?P<seq>\s*\d+)(?P<at>\s+\S*\d:\d\S*)?(\s+)(?P<kind>[a-z-]+)(\s+)(?P<ref>\S+)(.*)$")
"""seq, time, kind, ref, rest: as `swarm log` prints an entry."""


class Lines(ScrollView, Pane, can_focus=True):
    """Lines of the log."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(self, **rest: str) -> None:
        super().__init__(id=rest.get("id"), classes=rest.get("classes"))
        self.lines: tuple[str, ...] = ()

    def show(self, view: View) -> None:
        self.border_title = "log"
        self.show_lines(view.snapshot.tail)

    def show_lines(self, lines: Sequence[str]) -> None:
        if tuple(lines) == self.lines:
            return
        follows = self.scroll_offset.y >= self.max_scroll_y
        self.lines = tuple(lines)
        self.virtual_size = Size(self.scrollable_content_region.width, len(lines))
        if follows:
            self._to_end()
        self.refresh()

    def on_resize(self, event: events.Resize) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self.lines))
        self._to_end()

    def _to_end(self) -> None:
        self.scroll_to(y=max(0, len(self.lines) - self.size.height), animate=False, force=True)

    def render_line(self, y: int) -> Strip:
        index, width = self.scroll_offset.y + y, self.scrollable_content_region.width
        text = coloured(self.lines[index]) if index < len(self.lines) else Text()
        text.truncate(width, overflow="ellipsis")
        return strip(text, self.app.console, width, self.rich_style)


def coloured(line: str) -> Text:
    """An entry with its parts in different styles; any other line unchanged."""
    found = ENTRY.match(line)
    if found is None:
        return Text(line, no_wrap=True, overflow="ellipsis")
    seq, at, space, kind, gap, ref, rest = found.groups()
    return Text.assemble(
        (seq, looks.DIM),
        (at or "", looks.DIM),
        space,
        (kind, looks.KINDS.get(kind, "")),
        gap,
        (ref, "bold"),
        rest,
        no_wrap=True,
        overflow="ellipsis",
    )
