"""Draws the same screen on a terminal that knows ASCII only: every line that Textual sends passes here, width for width.

One filter instead of a second set of glyphs, so that Textual's own parts (scrollbars, palette, notes) degrade too.
"""

from __future__ import annotations

from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

PLAIN = str.maketrans(
    {
        **dict.fromkeys("─═▔╌", "-"),
        **dict.fromkeys("│┃║▎▏▌▐┊", "|"),
        **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼╶╴", "+"),
        **dict.fromkeys("█▉▊▋■", "#"),
        **dict.fromkeys("━╸", "="),
        **dict.fromkeys("▁▂", "_"),
        **dict.fromkeys("▃▄", "-"),
        **dict.fromkeys("▅▆", "+"),
        **dict.fromkeys("▇", "#"),
        **dict.fromkeys("▸›→▶", ">"),
        **dict.fromkeys("●◆★", "*"),
        **dict.fromkeys("○◇", "o"),
        **dict.fromkeys("·…•", "."),
        **dict.fromkeys("−–—", "-"),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("‘’", "'"),
        "↵": "<",
        "α": "a",
        "×": "x",
        "✓": "v",
        "✗": "x",
        "\u2800": " ",
        "\xa0": " ",
    }
)


def needed(terminal: str, encoding: str) -> bool:
    """True where only ASCII can be shown: the bare consoles (by `TERM`), and a locale that is not UTF-8."""
    return terminal in ("dumb", "linux", "vt100", "ansi") or "utf" not in encoding.lower()


@lru_cache(4096)
def plain(text: str) -> str:
    """The text in ASCII, as many cells wide as before."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() else _instead(c) for c in text.translate(PLAIN))


def _instead(character: str) -> str:
    if "\u2801" <= character <= "\u28ff":  # braille: as dense as its dots
        dots = (ord(character) - 0x2800).bit_count()
        return "." if dots < 3 else ":" if dots < 5 else "#"
    return "?" * cell_len(character)


class AsciiFilter(LineFilter):
    """Turns the text of each segment into ASCII."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]
