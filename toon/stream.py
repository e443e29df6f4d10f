"""Documents in pieces: a decoder fed with any chunks, the rows of a table one after the other, and a writer of rows.

Reads from iterables and writes to callables; opens nothing itself.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import Any, Self

from toon.columns import SCALARS, Foreign
from toon.decode import checked_indent
from toon.encode import Encoder, with_any_types
from toon.errors import ToonError
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.quick import QuickReader
from toon.rows import rows_of
from toon.scopes import TABLE, path_text
from toon.tables import refuse_containers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from toon.headers import Header
    from toon.scopes import Scope

ENOUGH_CHARACTERS = 64 * 1024
"""Chunks are gathered to this size before they are read: a file's lines one by one would cost more in steps than in work."""


class Decoder:
    """Decodes one document fed in pieces; the result is that of `decode`, wherever the pieces were cut.

    Memory: the value so far and one unfinished line. Raises `ToonError` from `feed` as soon as a complete line is faulty.
    """

    def __init__(self, *, indent: int = 2, strict: bool = True, limits: Limits = DEFAULT_LIMITS) -> None:
        """Begin a document; the options are those of `decode`."""
        self._reader = QuickReader(checked_indent(indent), strict, limits)
        self._utf8 = getincrementaldecoder("utf-8")()
        self._unfinished: list[str] = []
        self._size = 0
        self._limits = limits
        self._at_start = True

    def feed(self, chunk: str | bytes) -> None:
        """Take the next piece, cut anywhere: within a line, a token, or the bytes of one character."""
        self._size += len(chunk)
        if self._size > self._limits.max_bytes:
            raise ToonError("limit", f"expected at most {self._limits.max_bytes} bytes, found more")
        text = chunk if isinstance(chunk, str) else self._text(chunk, final=False)
        if self._at_start and text:
            text = text.removeprefix("\ufeff")
            self._at_start = False
        complete, newline, rest = text.rpartition("\n")
        if newline:
            self._unfinished.append(complete)
            self._reader.read(prepared("".join(self._unfinished)))
            self._unfinished = []
        if rest:
            self._unfinished.append(rest)

    def finish(self) -> Any:
        """Say that nothing more comes, and get the value."""
        self._unfinished.append(self._text(b"", final=True))
        self._reader.read(prepared("".join(self._unfinished)))
        return self._reader.finish()

    def _text(self, chunk: bytes, *, final: bool) -> str:
        try:
            return self._utf8.decode(chunk, final)
        except UnicodeDecodeError as fault:
            line = self._reader.lines_before + bytes(fault.object).count(b"\n", 0, fault.start) + 1
            found = f"byte 0x{fault.object[fault.start]:02x} ({fault.reason})"
            raise ToonError("utf8", f"expected UTF-8, found {found}", line=line) from None


def iter_rows(
    chunks: Iterable[str] | Iterable[bytes],
    *,
    path: str = "",
    indent: int = 2,
    strict: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[dict[str, Any]]:
    """The rows of one table of a document, as they come; `path` names the table (`runs.w03`), the root by default.

    `chunks` is an open file or any pieces. Rows given out are not kept: memory does not grow with their number.
    Raises `ToonError` as `decode` does, after the rows before the fault, and `syntax` where no table stands at `path`.
    """
    reader = _RowReader(path, indent, strict, limits)
    decoder = Decoder(indent=indent, strict=strict, limits=limits)
    decoder._reader = reader
    for chunk in gathered(chunks):
        decoder.feed(chunk)
        yield from reader.taken()
    value = decoder.finish()
    yield from reader.taken()
    if not reader.found and not (path == "" and value == []):
        raise ToonError("syntax", f"expected a table at {path or 'the root'}, found none")


def gathered(chunks: Iterable[str] | Iterable[bytes]) -> Iterator[str | bytes]:
    """The same pieces in fewer, larger ones."""
    pending: list[Any] = []
    size = 0
    for chunk in chunks:
        pending.append(chunk)
        size += len(chunk)
        if size >= ENOUGH_CHARACTERS:
            yield type(chunk)().join(pending)
            pending, size = [], 0
    if pending:
        yield type(pending[0])().join(pending)


class _RowReader(QuickReader):
    """Puts the rows of one table aside instead of into the value."""

    def __init__(self, path: str, indent: int, strict: bool, limits: Limits) -> None:
        super().__init__(checked_indent(indent), strict, limits)
        self.path = path
        self.found: Scope | None = None
        self.ready: list[dict[str, Any]] = []

    def _open(self, kind: int, value: object, outer: Scope, name: str | int | None) -> Scope:
        opened = super()._open(kind, value, outer, name)
        if kind == TABLE and self.found is None and path_text(scope.name for scope in self.stack) == self.path:
            self.found = opened
        return opened

    def _add_rows(self, scope: Scope, header: Header, columns: list[list[object]], count: int) -> None:
        if scope is self.found:
            assert header.fields is not None
            self.ready.extend(rows_of(header.fields, iter(columns), count))
        else:
            super()._add_rows(scope, header, columns, count)

    def taken(self) -> list[dict[str, Any]]:
        """The rows since the last call."""
        rows, self.ready = self.ready, []
        return rows


class RowWriter:
    """Writes a table whose number of rows is not known beforehand: its header once, then rows, a batch at a time.

    The text is `[0]{a,b}:` and the rows. It decodes whole with `strict=False` (section 14.4: a declared count never ends a table)
    and with `iter_rows(..., strict=False)`; the count check is the price. `toon.frames` keeps that check.

    >>> with RowWriter(["step", "loss"], file.write) as rows:
    ...     rows.write({"step": 1, "loss": 0.5})
    """

    def __init__(
        self,
        fields: Iterable[str],
        write: Callable[[str], object],
        *,
        batch_rows: int = 1000,
        indent: int = 2,
        delimiter: str = ",",
    ) -> None:
        """Write the header; `write` takes text, as a file's `write` does."""
        self.fields = list(fields)
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise ToonError("option", f"expected different field names, found {self.fields}")
        self.batch_rows = batch_rows
        self.rows_written = 0
        self._write, self._indent, self._delimiter = write, indent, delimiter
        self._batch: list[Sequence[Any]] = []
        self._write(table_header(self.fields, 0, indent, delimiter))

    def write(self, row: Mapping[str, Any] | Sequence[Any]) -> None:
        """Add one row, by field names or in the order of the fields. Raises `value` where it does not fit."""
        if isinstance(row, list | tuple):
            cells = row
        else:
            if not isinstance(row, dict) or row.keys() != set(self.fields):
                raise ToonError("value", f"expected a row with the fields {self.fields}, found {row!r:.200}")
            cells = [row[name] for name in self.fields]
        if len(cells) != len(self.fields):
            raise ToonError("value", f"expected {len(self.fields)} cells, found {len(cells)}")
        self._batch.append(cells)
        if len(self._batch) >= self.batch_rows:
            self.flush()

    def flush(self) -> None:
        """Write the rows held back."""
        if not self._batch:
            return
        columns = dict(zip(self.fields, zip(*self._batch, strict=True), strict=True))
        text = with_any_types(lambda plain: row_lines(plain, self._indent, self._delimiter), columns)
        self._write("\n" + text)
        self.rows_written += len(self._batch)
        self._batch = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, fault: object, trace: object) -> None:
        self.flush()


def table_header(fields: Iterable[str], count: int, indent: int, delimiter: str) -> str:
    """The header line of a root table of primitive fields."""
    encoder = Encoder(indent, delimiter)
    encoder.rows("", None, [(name, None) for name in fields], [], 1, count)
    return encoder.lines[0]


def row_lines(columns: dict[str, Sequence[Any]], indent: int, delimiter: str) -> str:
    """The lines of a root table's rows."""
    if not all(SCALARS.issuperset(map(type, column)) for column in columns.values()):
        for name, column in columns.items():
            refuse_containers(name, column)
        raise Foreign
    encoder = Encoder(indent, delimiter)
    encoder.rows("", None, [(name, None) for name in columns], [(column, None) for column in columns.values()], 1)
    return encoder.lines[1]
