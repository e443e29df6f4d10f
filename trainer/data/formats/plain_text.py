"""A `.txt` file is one row: its text, its lines ended by line feeds alone however the file ends them, and its name to group by."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from trainer.data.bad import BadRow
from trainer.data.formats.text import SAVE_AS_UTF8, not_utf8, whole_text
from trainer.data.raw import RawRow


def read(path: Path) -> Iterator[RawRow | BadRow]:
    text = whole_text(path)
    if (at := not_utf8(text)) is None:
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        yield RawRow(str(path), {"text": lines, "file": path.name}, partial(str, text))
    else:
        yield BadRow(str(path), f"not UTF-8 at byte {at}", SAVE_AS_UTF8, partial(str, text))
