"""Rows of `.csv` files, whose first line names the columns.

What separates fields is what separates the names: spreadsheets write semicolons where a comma is the decimal sign.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from swarm.errors import UserError
from trainer.data.bad import BadRow
from trainer.data.formats.text import opened
from trainer.data.raw import RawRow, named

SEPARATORS = ",;\t|"
FIELD_CHARACTERS = 1 << 27  # long texts are data here, not an attack; the default is 128 KiB


class _Lines:
    """Lines of a CSV file with their numbers, which can be put back: an unclosed quote swallows all that follow it."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._back = file, deque[str]()
        self.taken: list[str] = []
        """Lines of the row that is being read."""
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._file)
        self.number += 1
        self.taken.append(line)
        return line

    def begin(self) -> int:
        """A new row begins; returns the number of its first line."""
        self.taken = []
        return self.number + 1

    def separator(self) -> str:
        """The commonest between the names of the columns; a comma where there is one column."""
        if (line := next(self._file, None)) is None:
            return ","
        self._back.append(line)
        bare = re.sub(r'"[^"]*"', "", line)
        return max(SEPARATORS, key=bare.count)

    def put_back_all_but_first(self) -> str:
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        return self.taken[0] if self.taken else ""


def read(path: Path) -> Iterator[RawRow | BadRow]:
    csv.field_size_limit(FIELD_CHARACTERS)
    with opened(path, newline="") as file:
        lines = _Lines(file)
        separator = lines.separator()
        reader = csv.reader(lines, strict=True, delimiter=separator)
        header = _header(path, reader)
        while True:
            where = f"{path}:{lines.begin()}"
            try:
                fields = next(reader, None)
            except csv.Error as error:
                first = lines.put_back_all_but_first()
                reader = csv.reader(lines, strict=True, delimiter=separator)
                what = f"not CSV ({error})"
                yield BadRow(
                    where, what, "quote fields with double quotes and write quotes in them twice", partial(str, first)
                )
                continue
            if fields is None:
                return
            text = partial("".join, lines.taken)
            if len(fields) == len(header):
                yield RawRow(where, dict(zip(header, fields, strict=True)), text)
            elif fields:
                what = f"{len(fields)} fields where the header has {len(header)}"
                yield BadRow(where, what, "quote fields that hold commas or line breaks", text)


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{path}:1", f"not CSV ({error})", "save it as UTF-8 CSV with double quotes") from error
    if not header:
        raise UserError(str(path), "an empty file", "its first line names the columns")
    return named(path, header)
