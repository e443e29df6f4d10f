"""Raw rows of dataset files and of hub datasets, each with the place it came from; what a row means is `rows`' work.

A line that cannot be read is yielded as a BadRow, so that the rest of its file still is; a file that cannot be read is a UserError.
"""

from __future__ import annotations

import csv
import glob
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.settings import Dataset
from toon import decode

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".toon")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""owner/name, as the hub spells it."""


@dataclass(frozen=True)
class RawRow:
    where: str
    """`file:line`, or `file: row N` where a format has no lines."""
    values: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where, what, and the fix."""

    where: str
    what: str
    fix: str
    text: str = ""
    """What stands there, as far as it could be read."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.fix}"


def files_of(dataset: Dataset) -> list[Path]:
    """The files that a path or pattern names, sorted; empty for a hub dataset."""
    found = sorted(path for name in glob.glob(dataset.path, recursive=True) if (path := Path(name)).is_file())  # noqa: PTH207 absolute patterns
    if not found and not _is_hub_name(dataset.path):
        raise UserError(
            "datasets.path", f"no file matches {dataset.path} in {Path.cwd()}", "correct the path or the pattern"
        )
    for path in found:
        if path.suffix not in SUFFIXES:
            raise UserError(
                "datasets.path", f"{path} is no {', '.join(SUFFIXES)} file", "convert it, or name another file"
            )
    return found


def raw_rows(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    """All rows of one dataset, in the order of its files."""
    yield from islice(_all_rows(dataset), dataset.limit)


def _all_rows(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    files = files_of(dataset)
    if not files:
        yield from _hub_rows(dataset)
    for path in files:
        yield from rows_of_file(path)


def rows_of_file(path: Path) -> Iterator[RawRow | BadRow]:
    match path.suffix:
        case ".jsonl":
            yield from _jsonl(path)
        case ".csv":
            yield from _csv(path)
        case ".parquet":
            yield from _parquet(path)
        case ".json":
            yield from _listed(path, _json_document(path))
        case ".toon":
            yield from _listed(path, _toon_document(path))
        case _:
            raise UserError(str(path), "unknown kind of file", f"use one of {', '.join(SUFFIXES)}")


def _jsonl(path: Path) -> Iterator[RawRow | BadRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip(b" \t\r\n\xef\xbb\xbf"):
                yield _json_line(f"{path}:{number}", line)


def _json_line(where: str, line: bytes) -> RawRow | BadRow:
    shown = line.decode("utf-8", errors="replace").rstrip("\n")
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return BadRow(where, f"not UTF-8 at byte {error.start}", "save the file as UTF-8", shown)
    except (ValueError, RecursionError) as error:
        return BadRow(where, f"not JSON ({error})", "write one JSON object per line", shown)
    if not isinstance(values, dict):
        return BadRow(where, f"a JSON {type(values).__name__}, not an object", "write one JSON object per line", shown)
    return RawRow(where, values)


def _csv(path: Path) -> Iterator[RawRow | BadRow]:
    csv.field_size_limit(1 << 27)  # long texts are data here, not an attack; the default is 128 KiB
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, None)
            if not header:
                raise UserError(str(path), "an empty file", "its first line names the columns")
            start = reader.line_num + 1
            for fields in reader:
                where, start = f"{path}:{start}", reader.line_num + 1
                if len(fields) == len(header):
                    yield RawRow(where, dict(zip(header, fields, strict=True)))
                elif fields:
                    what = f"{len(fields)} fields where the header has {len(header)}"
                    yield BadRow(where, what, "quote fields that hold commas or line breaks", ",".join(fields))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}:{reader.line_num}", f"not CSV ({error})", "save it as UTF-8 CSV with double quotes"
            ) from error


def _parquet(path: Path) -> Iterator[RawRow | BadRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield RawRow(f"{path}: row {number}", values)
    except (pa.ArrowException, OSError) as error:
        raise UserError(str(path), f"not a Parquet file that can be read ({error})", "write it again") from error


def _json_document(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(
            str(path), f"not JSON ({error})", "one list of objects; for an object per line use .jsonl"
        ) from error


def _toon_document(path: Path) -> Any:
    try:
        return decode(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(
            str(path), f"not TOON ({str(error).splitlines()[0]})", "one table, like `rows[2]{prompt,completion}:`"
        ) from error


def _listed(path: Path, document: Any) -> Iterator[RawRow | BadRow]:
    """Rows of a document that is a list, or an object with exactly one list."""
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else document
    if not isinstance(document, list):
        raise UserError(str(path), "holds no list of rows", "write one list of objects")
    for number, values in enumerate(document, start=1):
        where = f"{path}: row {number}"
        if isinstance(values, dict):
            yield RawRow(where, values)
        else:
            yield BadRow(
                where, f"a {type(values).__name__}, not an object", "write objects with named columns", str(values)
            )


def _is_hub_name(path: str) -> bool:
    return HUB_NAME.fullmatch(path) is not None and Path(path).suffix not in SUFFIXES


def _hub_rows(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    from datasets import load_dataset

    try:
        table = load_dataset(dataset.path, split=dataset.split)
    except (
        Exception
    ) as error:  # the library raises a dozen unrelated classes for: missing, gated, offline, no such split
        what = f"cannot be had from the hub ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise UserError(
            f"datasets.path: {dataset.path}", what, "check the name, the split, the network and your login"
        ) from error
    for number, values in enumerate(table, start=1):
        yield RawRow(f"{dataset.path}[{dataset.split}]: row {number}", dict(values))
