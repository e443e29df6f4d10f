"""Rows from any format as TOON, or back as JSON lines; what was written is read again and compared before it takes its name."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from swarm.errors import UserError
from swarm.settings import Dataset
from toon import decode, encode
from trainer.data.bad import BadRow, NotARow
from trainer.data.files import raw_rows
from trainer.data.gate import plain_row
from trainer.rowfiles.output import Made, jsonl, refuse_existing, written
from trainer.rowfiles.reading import files_read

ROWS = "rows"
"""Name of the table in the document."""


def run(arguments: Namespace) -> Made:
    refuse_existing(arguments.out, force=arguments.force, endings=(".toon", ".jsonl"))
    datasets = [Dataset(path=path) for path in arguments.inputs]
    rows = [row for dataset in datasets for row in _rows(dataset)]
    if not rows:
        raise UserError("toon", "the files hold no rows", "name others")
    as_lines = jsonl(rows)
    is_toon = arguments.out.suffix == ".toon"
    text = encode({ROWS: rows}) + "\n" if is_toon else as_lines
    _refuse_lossy(rows, text, is_toon=is_toon)
    counts = {"rows": len(rows), "bytes": len(text.encode()), "bytes_as_jsonl": len(as_lines.encode())}
    manifest = written("toon", arguments.out, text, force=arguments.force, inputs=files_read(datasets), **counts)
    share = counts["bytes"] / counts["bytes_as_jsonl"]
    return Made(
        manifest, f"{arguments.out}: {len(rows)} rows, {counts['bytes']} bytes ({share:.0%} of the same as JSON lines)"
    )


def _rows(dataset: Dataset) -> list[dict[str, Any]]:
    made = []
    for raw in raw_rows(dataset):
        if isinstance(raw, BadRow):
            raise UserError(raw.where, raw.what, raw.fix)
        try:
            made.append(plain_row(raw.values, filled=raw.filled))
        except NotARow as error:
            raise UserError(raw.where, error.what, error.fix) from error
    return made


def _refuse_lossy(rows: list[dict[str, Any]], text: str, *, is_toon: bool) -> None:
    read = decode(text)[ROWS] if is_toon else [json.loads(line) for line in text.split("\n")[:-1]]
    for number, (row, again) in enumerate(zip(rows, read, strict=True), start=1):
        if row != again:
            raise UserError("toon", f"row {number} would not come back as it was", "write it as .jsonl")
