"""`toon rows`: converts rows between NDJSON, CSV and TOON tables one by one, in constant memory.

All rows must have the fields of the first row (or of the header), in any order; other fields are an error that names the line. Cells
are primitives; only NDJSON may hold more, so nested fields of a TOON table can go to NDJSON alone. In CSV, null is the empty cell and
text is not changed: `null` is four letters, and the empty text is read as null. Cells that look like numbers, `true` or `false` are
read as these unless `--text` is given.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from itertools import chain, count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from toon.cli_json import json_value
from toon.errors import ToonError
from toon.limits import DEFAULT_LIMITS
from toon.scalars import NUMBER, token_value
from toon.stream import RowReader, RowShape, RowWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FORMATS = ("ndjson", "csv", "toon")


def add_rows_command(commands: Any) -> None:
    """Add the command to those of `toon`."""
    command: argparse.ArgumentParser = commands.add_parser(
        "rows",
        help="NDJSON or CSV to a TOON table and back, row by row",
        description="NDJSON or CSV to a TOON table and back, row by row. A table written this way declares [0], because its length "
        "is not known when its header is written: read it with --lenient (this command does so unless told --strict).",
        epilog="example:\n  toon rows log.ndjson --to toon > log.toon\n  toon rows --from toon --to csv < log.toon",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", nargs="?", default="-", help="a file, or - for standard input (default: -)")
    command.add_argument("--from", dest="source", choices=FORMATS, help="default: what the file's name ends with")
    command.add_argument("--to", choices=FORMATS, help="default: toon, or ndjson from toon")
    command.add_argument("--path", default="", help="where the table stands in a TOON document (default: its root)")
    command.add_argument(
        "--text",
        action="store_true",
        help="keep CSV cells as text instead of reading numbers, true, false and, in empty cells, null",
    )
    command.add_argument("--strict", action="store_true", help="check the TOON table's declared count")
    command.set_defaults(run=run_rows)


def opened(name: str) -> IO[bytes]:
    """A file to read bytes from."""
    return sys.stdin.buffer if name == "-" else Path(name).open("rb")


def run_rows(options: argparse.Namespace) -> int:
    """`toon rows`."""
    source = options.source or options.file.rpartition(".")[2].replace("jsonl", "ndjson")
    if source not in FORMATS:
        print(f"{options.file}: cannot tell the format from the name; add --from {'|'.join(FORMATS)}", file=sys.stderr)
        return 2
    to = options.to or ("ndjson" if source == "toon" else "toon")
    with opened(options.file) as file:
        table = _table(file, source, to, options)
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        try:
            {"ndjson": _write_ndjson, "csv": _write_csv, "toon": _write_toon}[to](table, out)
        finally:
            out.detach()  # flushes, and leaves stdout open
    return 0


class _Table(NamedTuple):
    """Rows that are read as they are iterated."""

    fields: list[str] | None
    """The names of the columns; None where there is neither a header nor a row."""
    rows: Iterator[tuple[int | None, dict[str, Any]]]
    """Each row with its line number in the source, if known."""

    def write_rows(self, write: Callable[[dict[str, Any]], object]) -> None:
        """Write each row; an error of the writer gets the line number of the row."""
        for line, row in self.rows:
            try:
                write(row)
            except ToonError as fault:
                fault.line = line if fault.line is None else fault.line
                raise


def _table(file: IO[bytes], source: str, to: str, options: argparse.Namespace) -> _Table:
    if source == "csv":
        return _csv_table(file, options.text)
    if source == "toon":
        return _toon_table(file, RowReader(options.path, 2, options.strict, DEFAULT_LIMITS), nested=to == "ndjson")
    rows = _ndjson_rows(file)
    first = next(rows, None)
    if first is None:
        return _Table(None, rows)
    return _Table(_checked_names(list(first[1]), first[0]), chain([first], rows))


def _checked_names(fields: list[str], line: int) -> list[str]:
    try:
        return RowShape(fields).fields
    except ToonError as fault:
        fault.line = line
        raise


def _toon_table(file: IO[bytes], reader: RowReader, *, nested: bool) -> _Table:
    rows = reader.rows(file)
    first = next(rows, None)
    header = reader.found.header if reader.found else None
    fields = [field.name for field in header.fields] if header and header.fields else None
    if header and header.depth > 1 and not nested:
        raise ToonError("value", "expected a table without nested fields (they go to ndjson only), found some")
    return _Table(fields, iter(()) if first is None else ((None, row) for row in chain([first], rows)))


def _ndjson_rows(file: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json_value(line)
        except ToonError as fault:
            fault.line = number
            raise
        if not isinstance(row, dict):
            raise ToonError("value", f"expected an object, found {type(row).__name__}", line=number)
        yield number, row


def _csv_table(file: IO[bytes], text: bool) -> _Table:
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    fields = next(_csv_cells(reader), None)
    if fields is None:
        return _Table(None, iter(()))
    return _Table(_checked_names(fields, 1), _csv_rows(reader, fields, text))


def _csv_rows(reader: Any, fields: list[str], text: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    for cells in _csv_cells(reader):
        line = reader.line_num
        if len(cells) != len(fields):
            raise ToonError("width", f"expected {len(fields)} cells, found {len(cells)}", line=line)
        try:
            yield line, dict(zip(fields, cells if text else map(_cell_value, cells), strict=True))
        except ToonError as fault:  # a number beyond the limits; its column is one of the cell
            fault.line, fault.column = line, None
            raise


def _csv_cells(reader: Any) -> Iterator[list[str]]:
    try:
        yield from reader
    except UnicodeDecodeError as fault:
        raise ToonError("utf8", f"expected UTF-8: {fault.reason}", line=reader.line_num + 1) from None
    except csv.Error as fault:
        raise ToonError("syntax", f"no CSV: {fault}", line=reader.line_num) from None


def _cell_value(cell: str) -> Any:
    if cell in _CSV_LITERALS:
        return _CSV_LITERALS[cell]
    return token_value(cell) if NUMBER.fullmatch(cell) else cell


_CSV_LITERALS = {"": None, "true": True, "false": False}


def _write_toon(table: _Table, out: IO[str]) -> None:
    if table.fields is None:
        out.write("[]\n")
        return
    with RowWriter(table.fields, out.write) as writer:
        table.write_rows(writer.write)
    out.write("\n")


def _write_ndjson(table: _Table, out: IO[str]) -> None:
    if table.fields is None:
        return
    shape = RowShape(table.fields, nested=True)
    numbers = count()

    def write(row: dict[str, Any]) -> None:
        cells = shape.cells(row, next(numbers))
        line = json.dumps(dict(zip(shape.fields, cells, strict=True)), ensure_ascii=False, separators=(",", ":"))
        out.write(line + "\n")

    table.write_rows(write)


def _write_csv(table: _Table, out: IO[str]) -> None:
    if table.fields is None:
        return
    shape = RowShape(table.fields)
    numbers = count()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(shape.fields)
    table.write_rows(lambda row: writer.writerow(map(_csv_cell, shape.cells(row, next(numbers)))))


def _csv_cell(value: Any) -> Any:
    return "" if value is None else json.dumps(value) if isinstance(value, bool) else value
