"""A filter over every line that Textual draws, for terminals that have ASCII only.

A filter and not a second set of glyphs, so that Textual's own widgets (scrollbars, palette, notifications) are covered too.
"""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from swarm.asciitext import plain


class AsciiFilter(LineFilter):
    """Turns the text of each segment into ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]
