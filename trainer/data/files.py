"""Raw rows of dataset files and of hub datasets, each with the place it came from; what a row means is `rows`' work.

A line that cannot be read is yielded as a BadRow, so that the rest of its file still is; a file that cannot be read is a UserError.
"""

from __future__ import annotations

import csv
import glob
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

from swarm.errors import UserError
from swarm.settings import DATA_SUFFIXES, Dataset
from toon import decode
from trainer.data.bad import BadRow, reason_of
from trainer.data.gate import written

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""owner/name, as the hub spells it."""
BATCH_ROWS = 64
"""Rows that are taken from a Parquet or Arrow file at a time: one may have megabytes."""
CSV_FIELD_CHARACTERS = 1 << 27  # long texts are data here, not an attack; the default is 128 KiB
WHOLE_BYTES = 1 << 27
"""A document that has to be read whole takes some ten times its size in memory; a larger one is refused."""
SAVE_AS_UTF8 = "save the file as UTF-8"


@dataclass(frozen=True)
class RawRow:
    where: str
    """`file:line`, or `file: row N` where a format has no lines."""
    values: Mapping[str, Any]
    text: Callable[[], str]
    """The row without loss, for setting it aside."""
    filled: bool = False
    """From Arrow, which gives every object the keys that any other has."""


def files_of(dataset: Dataset) -> list[Path]:
    """The files that a path or pattern names, sorted; empty for a hub dataset."""
    found = sorted(path for name in glob.glob(dataset.path, recursive=True) if (path := Path(name)).is_file())  # noqa: PTH207 absolute patterns
    if not found and not _is_hub_name(dataset.path):
        raise UserError(
            "datasets.path", f"no file matches {dataset.path} in {Path.cwd()}", "correct the path or the pattern"
        )
    for path in found:
        if path.suffix not in DATA_SUFFIXES:
            raise UserError(
                "datasets.path", f"{path} is no {', '.join(DATA_SUFFIXES)} file", "convert it, or name another file"
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
    try:
        yield from _rows_of_file(path)
    except UnicodeDecodeError as error:  # UTF-16 that ends in the middle of a character
        raise UserError(str(path), f"not a text file ({error.reason})", SAVE_AS_UTF8) from error


def _rows_of_file(path: Path) -> Iterator[RawRow | BadRow]:
    match path.suffix:
        case ".jsonl" | ".ndjson":
            yield from _jsonl(path)
        case ".csv":
            yield from _csv(path)
        case ".parquet" | ".arrow":
            yield from _columns(path)
        case ".json":
            yield from _listed(path, _json_document(path))
        case ".toon":
            yield from _listed(path, _toon_document(path))
        case _:
            raise UserError(str(path), "unknown kind of file", f"use one of {', '.join(DATA_SUFFIXES)}")


# ---- text ----


def opened(path: Path, newline: str = "\n") -> IO[str]:
    """The file as text, its lines ended by line feeds alone; bytes that are not valid there become lone surrogates.

    UTF-8 with or without a mark, UTF-16 by its mark or by the zero bytes that ASCII characters have in it.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, errors = "utf-16", "surrogatepass"
    elif len(head) >= 2 and 0 in head[:2]:
        encoding, errors = ("utf-16-le" if head[1] == 0 else "utf-16-be"), "surrogatepass"
    else:
        encoding, errors = "utf-8-sig", "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline=newline)


def _whole_text(path: Path) -> str:
    if (size := path.stat().st_size) > WHOLE_BYTES:
        what = f"has {size >> 20} MiB, and a {path.suffix} file is read whole: at most {WHOLE_BYTES >> 20} MiB"
        raise UserError(str(path), what, "write one JSON object per line into a .jsonl file, which is read row by row")
    with opened(path) as file:
        return file.read()


class Twice(ValueError):
    """A JSON object names a key twice: the first value would be lost."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise Twice(f"the key {twice!r} stands twice in one object")
    return found


def _jsonl(path: Path) -> Iterator[RawRow | BadRow]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip(" \t\r\n\ufeff"):
                yield _json_line(f"{path}:{number}", line.rstrip("\n"))


def _json_line(where: str, line: str) -> RawRow | BadRow:
    text = partial(str, line)
    try:
        values = json.loads(line.lstrip("\ufeff"), object_pairs_hook=_object)
    except Twice as error:
        return BadRow(where, str(error), "keep one of them", text)
    except (ValueError, RecursionError) as error:
        if (at := _not_utf8(line)) is not None:
            return BadRow(where, f"not UTF-8 at byte {at}", SAVE_AS_UTF8, text)
        return BadRow(where, f"not JSON ({reason_of(error)})", "write one JSON object per line", text)
    if (at := _not_utf8(line)) is not None:
        return BadRow(where, f"not UTF-8 at byte {at}", SAVE_AS_UTF8, text)
    if not isinstance(values, dict):
        return BadRow(where, f"a JSON {type(values).__name__}, not an object", "write one JSON object per line", text)
    return RawRow(where, values, text)


def _not_utf8(text: str) -> int | None:
    """Index of the first byte that was no UTF-8, or None."""
    found = None if text.isascii() else re.search("[\udc80-\udcff]", text)
    return len(text[: found.start()].encode("utf-8", "surrogatepass")) if found else None


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

    def put_back_all_but_first(self) -> str:
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        return self.taken[0] if self.taken else ""


def _csv(path: Path) -> Iterator[RawRow | BadRow]:
    csv.field_size_limit(CSV_FIELD_CHARACTERS)
    with opened(path, newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        header = _csv_header(path, reader)
        while True:
            where = f"{path}:{lines.begin()}"
            try:
                fields = next(reader, None)
            except csv.Error as error:
                first = lines.put_back_all_but_first()
                reader = csv.reader(lines, strict=True)
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


def _csv_header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise UserError(f"{path}:1", f"not CSV ({error})", "save it as UTF-8 CSV with double quotes") from error
    if not header:
        raise UserError(str(path), "an empty file", "its first line names the columns")
    _refuse_twice(path, header)
    return header


def _refuse_twice(path: Path, columns: list[str]) -> None:
    name, count = Counter(columns).most_common(1)[0] if columns else ("", 0)
    if count > 1:
        raise UserError(str(path), f"{count} columns are named {name!r}", "give each column a name of its own")


# ---- columns ----


def _columns(path: Path) -> Iterator[RawRow | BadRow]:
    number = 0
    with reading_columns(path):
        for batch in batches(path):
            _refuse_twice(path, batch.schema.names)
            for at in range(batch.num_rows):
                number += 1
                yield _column_row(f"{path}: row {number}", batch.slice(at, 1))


@contextmanager
def reading_columns(path: Path) -> Iterator[None]:
    """Raises UserError for a file that is not what its ending says."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        what = f"not a {path.suffix[1:].capitalize()} file that can be read ({reason_of(error)})"
        raise UserError(str(path), what, "write it again") from error


def batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        yield from pq.ParquetFile(path).iter_batches(batch_size=BATCH_ROWS)
        return
    with pa.memory_map(str(path)) as source:
        try:
            reader: Any = pa.ipc.open_file(source)
            yield from map(reader.get_batch, range(reader.num_record_batches))
        except pa.ArrowInvalid:  # the format without a footer, which `datasets` writes
            source.seek(0)
            yield from pa.ipc.open_stream(source)


def _column_row(where: str, row: Any) -> RawRow | BadRow:
    try:
        (values,) = row.to_pylist()
    except Exception as error:
        return BadRow(
            where, f"cannot be read ({reason_of(error)})", "write the column in another type", partial(str, row)
        )
    return RawRow(where, values, partial(written, values), filled=True)


# ---- whole documents ----


def _json_document(path: Path) -> Any:
    try:
        return json.loads(_whole_text(path), object_pairs_hook=_document_object)
    except (ValueError, RecursionError) as error:
        raise UserError(
            str(path), f"not JSON ({error})", "one list of objects; for an object per line use .jsonl"
        ) from error


class _TwiceNamed(dict[str, Any]):
    """An object of a JSON document that names a key twice: its row is a bad one, the document is read on."""

    why = ""


def _document_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    try:
        return _object(pairs)
    except Twice as error:
        twice = _TwiceNamed(pairs)
        twice.why = str(error)
        return twice


def _toon_document(path: Path) -> Any:
    try:
        return decode(_whole_text(path))
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
        where, text = f"{path}: row {number}", partial(written, values)
        if why := next(_whys(values), ""):
            yield BadRow(where, why, "keep one of them", text)
        elif isinstance(values, dict):
            yield RawRow(where, values, text)
        else:
            yield BadRow(where, f"a {type(values).__name__}, not an object", "write objects with named columns", text)


def _whys(value: Any) -> Iterator[str]:
    """What is wrong with the objects in a value."""
    if isinstance(value, _TwiceNamed):
        yield value.why
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _whys(entry)


# ---- the hub ----


def _is_hub_name(path: str) -> bool:
    return HUB_NAME.fullmatch(path) is not None and Path(path).suffix not in DATA_SUFFIXES


def _hub_rows(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    from datasets import load_dataset

    try:
        table = load_dataset(dataset.path, split=dataset.split)
    except (
        Exception
    ) as error:  # the library raises a dozen unrelated classes for: missing, gated, offline, no such split
        what = f"cannot be had from the hub ({reason_of(error)})"
        raise UserError(
            f"datasets.path: {dataset.path}", what, "check the name, the split, the network and your login"
        ) from error
    for number, values in enumerate(table, start=1):
        yield RawRow(
            f"{dataset.path}[{dataset.split}]: row {number}", dict(values), partial(written, dict(values)), filled=True
        )
