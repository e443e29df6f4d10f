"""Draws the same screen on a terminal that knows ASCII only: every line that Textual sends passes here, width for width.

One filter instead of a second set of glyphs, so that Textual's own parts (scrollbars, palette, notes) degrade too.
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
