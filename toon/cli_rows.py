"""`toon rows`: the rows of NDJSON, CSV or a TOON table, turned into another of these as they come, in flat memory."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from typing import IO, TYPE_CHECKING, Any

from toon.errors import ToonError
from toon.scalars import LITERALS, NUMBER, token_value
from toon.stream import RowWriter, iter_rows

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
        "--text", action="store_true", help="keep CSV cells as text instead of reading numbers and literals"
    )
    command.add_argument("--strict", action="store_true", help="check the TOON table's declared count")
    command.set_defaults(run=run_rows)


def run_rows(options: argparse.Namespace) -> int:
    """`toon rows`."""
    from toon.cli import opened

    source = options.source or options.file.rpartition(".")[2].replace("jsonl", "ndjson")
    if source not in FORMATS:
        print(f"{options.file}: cannot tell the format from the name; add --from {'|'.join(FORMATS)}", file=sys.stderr)
        return 2
    to = options.to or ("ndjson" if source == "toon" else "toon")
    with opened(options.file) as file:
        rows = _rows(file, source, options)
        out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="")
        try:
            {"ndjson": _write_ndjson, "csv": _write_csv, "toon": _write_toon}[to](rows, out)
        finally:
            out.detach()  # flushes, and leaves stdout open
    return 0


def _rows(file: IO[bytes], source: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    if source == "toon":
        return iter_rows(file, path=options.path, strict=options.strict)
    return _ndjson_rows(file) if source == "ndjson" else _csv_rows(file, options.text)


def _ndjson_rows(file: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    from toon.cli import json_value

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
        yield row


def _csv_rows(file: IO[bytes], text: bool) -> Iterator[dict[str, Any]]:
    reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
    try:
        names = next(reader, [])
        for cells in reader:
            if len(cells) != len(names):
                raise ToonError("width", f"expected {len(names)} cells, found {len(cells)}", line=reader.line_num)
            yield dict(zip(names, cells if text else map(_cell_value, cells), strict=True))
    except UnicodeDecodeError as fault:
        raise ToonError("utf8", f"expected UTF-8: {fault.reason}", line=reader.line_num + 1) from None
    except csv.Error as fault:
        raise ToonError("syntax", f"no CSV: {fault}", line=reader.line_num) from None


def _cell_value(cell: str) -> Any:
    return token_value(cell) if cell in LITERALS or NUMBER.fullmatch(cell) else cell


def _write_toon(rows: Iterator[dict[str, Any]], out: IO[str]) -> None:
    first = next(rows, None)
    if first is None:
        out.write("[]\n")
        return
    with RowWriter(first, out.write) as writer:
        writer.write(first)
        for row in rows:
            writer.write(row)
    out.write("\n")


def _write_ndjson(rows: Iterator[dict[str, Any]], out: IO[str]) -> None:
    for row in rows:
        out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def _write_csv(rows: Iterator[dict[str, Any]], out: IO[str]) -> None:
    names: list[str] | None = None
    write: Callable[[Iterable[Any]], Any] = csv.writer(out, lineterminator="\n").writerow
    for row in rows:
        if names is None:
            names = list(row)
            write(names)
        write(
            "" if value is None else json.dumps(value) if isinstance(value, bool) else value for value in row.values()
        )
