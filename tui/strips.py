"""One line of rich text as the strip that Textual draws."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual.strip import Strip


def segments(text: Text, console: Console) -> Iterable[Segment]:
    """The segments of the text, with its own style, which rich does not apply itself."""
    text = text.copy()
    text.end = ""
    text.stylize_before(text.style)
    return text.render(console)


def strip(text: Text, console: Console, width: int, style: Style) -> Strip:
    """The text on `width` cells, over `style`."""
    return Strip(segments(text, console)).apply_style(style).adjust_cell_length(width, style)
