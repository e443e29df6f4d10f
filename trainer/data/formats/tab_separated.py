"""Rows of `.tsv` files, whose first line names the columns: what stands between two tabs is a field, its quotes included.

That is IANA's text/tab-separated-values, and how the files of GLUE are written: they hold single quotation marks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from swarm.errors import UserError
from trainer.data.bad import BadRow
from trainer.data.formats.text import opened
from trainer.data.raw import RawRow, named


def read(path: Path) -> Iterator[RawRow | BadRow]:
    with opened(path) as file:
        lines = (line.rstrip("\r\n") for line in file)
        header = next(lines, "").split("\t")
        if header == [""]:
            raise UserError(str(path), "an empty file", "its first line names the columns")
        columns = named(path, header)
        for number, line in enumerate(lines, start=2):
            fields, where, text = line.split("\t"), f"{path}:{number}", partial(str, line)
            if line and len(fields) == len(columns):
                yield RawRow(where, dict(zip(columns, fields, strict=True)), text)
            elif line:
                what = f"{len(fields)} fields where the header has {len(columns)}"
                yield BadRow(where, what, "save it as .csv if fields hold tabs or line breaks", text)
