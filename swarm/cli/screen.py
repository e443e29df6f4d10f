"""Prints text for people, columns, JSON and TOON, as the terminal takes them."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any


def print_data(value: Any, form: bool | None, *, following: bool = False) -> None:
    """Print data as JSON (`form` True) or TOON; `following`: one of many documents, flushed, JSON on one line."""
    if form:
        text = json.dumps(value, indent=None if following else 2, ensure_ascii=False)
        print(as_shown(text), flush=following)
    else:
        from toon import encode

        print(as_shown(encode(value)), end="\n\n" if following else "\n", flush=following)


def tell(text: str) -> None:
    """Print text for people on stdout."""
    print(for_people(text))


def for_people(text: str) -> str:
    """The text without characters that control a terminal; in ASCII if the locale or the terminal has no more."""
    from swarm import asciitext
    from swarm.printable import printable

    safe = printable(text)
    return asciitext.plain(safe) if asciitext.needed(os.environ) else safe


def as_shown(data: str) -> str:
    """Data unchanged, except on a terminal: there without characters that control it."""
    from swarm.printable import printable

    return printable(data) if is_terminal() else data


def is_terminal() -> bool:
    return sys.stdout.isatty()


def room() -> int | None:
    """The width of the terminal in cells; None if stdout is no terminal."""
    return shutil.get_terminal_size().columns if is_terminal() else None


def columns(rows: Sequence[Sequence[str]], *, gap: int = 2, width: int | None = None, spare: Sequence[str] = ()) -> str:
    """Rows of cells; each column is as wide as its widest cell, the last one is not padded.

    If `width` is given and too small, columns with a heading in `spare` are left out in that order until the others fit; then
    the cells of the last column, which holds reasons, are shortened.
    """
    from swarm.views.reasons import short

    if not rows:
        return ""
    for heading in spare if width else ():
        if width and max(map(len, columns(rows, gap=gap).splitlines())) > width and heading in rows[0]:
            at = list(rows[0]).index(heading)
            rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if width and (left := width - sum(widths[:-1]) - gap * (len(widths) - 1)) < widths[-1]:
        rows = [[*row[:-1], short(row[-1], max(8, left))] for row in rows]
    return "\n".join(
        (" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
