"""Streaming: a decoder that takes chunks, an iterator over the rows of a table, and a writer of rows.

Reads from iterables and writes to callables; opens nothing itself.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from toon.columns import SCALARS, column_texts
from toon.documents import checked_indent
from toon.encode import Encoder
from toon.errors import ToonError, excerpt
from toon.fast_reader import FastReader
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.row_lines import rows_of
from toon.scopes import TABLE, path_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from toon.headers import Header
    from toon.scopes import Scope

ENOUGH_CHARACTERS = 64 * 1024
"""Chunks are gathered to this size before they are read: a file's lines one by one would cost more in steps than in work."""


class Decoder:
    """Decodes one document fed in pieces; the result is that of `decode`, wherever the pieces were cut.

    Memory: the value so far and one unfinished line. Raises `ToonError` from `feed` as soon as a complete line is faulty;
    after that, and after `finish`, every further call is an `option` error.
    """

    def __init__(self, *, indent: int = 2, strict: bool = True, limits: Limits = DEFAULT_LIMITS) -> None:
        """Begin a document; the options are those of `decode`."""
        self._reader = FastReader(checked_indent(indent), strict, limits)
        self._utf8 = getincrementaldecoder("utf-8")()
        self._unfinished: list[str] = []
        self._size = 0
        self._limits = limits
        self._at_start = True
        self._over = ""
        """Why no further call makes sense; stands as well while a call is under way, so that a fault leaves it."""

    def feed(self, chunk: str | bytes) -> None:
        """Take the next piece, cut anywhere: within a line, a token, or the bytes of one character."""
        self._begin("an earlier piece was faulty")
        if not isinstance(chunk, str | bytes):
            raise ToonError("option", f"expected a piece of text or bytes, found {type(chunk).__name__}")
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
        self._over = ""

    def finish(self) -> Any:
        """End the document and return its value."""
        self._begin("its document is finished")
        self._unfinished.append(self._text(b"", final=True))
        self._reader.read(prepared("".join(self._unfinished)))
        return self._reader.finish()

    def _begin(self, over: str) -> None:
        if self._over:
            raise ToonError("option", f"expected no more calls: this decoder is used up, {self._over}")
        self._over = over

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
    yield from RowReader(path, indent, strict, limits).rows(chunks)


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


class RowReader(FastReader):
    """Collects the rows of one table apart from the value."""

    def __init__(self, path: str, indent: int, strict: bool, limits: Limits) -> None:
        super().__init__(checked_indent(indent), strict, limits)
        self.path = path
        self.found: Scope | None = None
        """The table, once its header has been read."""
        self.ready: list[dict[str, Any]] = []

    def rows(self, chunks: Iterable[str] | Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """The rows for `iter_rows`."""
        decoder = Decoder(indent=self.indent, strict=self.strict, limits=self.limits)
        decoder._reader = self
        for chunk in gathered(chunks):
            decoder.feed(chunk)
            yield from self.taken()
        value = decoder.finish()
        yield from self.taken()
        if not self.found and not (self.path == "" and value == []):
            raise ToonError("syntax", f"expected a table at {self.path or 'the root'}, found none")

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
        """The rows that arrived since the last call."""
        rows, self.ready = self.ready, []
        return rows


class RowShape:
    """What each row of one table must be: the same fields, with a primitive in each."""

    def __init__(self, fields: Iterable[str], *, nested: bool = False) -> None:
        """Take the names of the fields; with `nested`, cells may be arrays and objects. Raises `option` for bad names."""
        self.fields = [_field_name(name) for name in fields] if isinstance(fields, Iterable) else []
        self.names = frozenset(self.fields)
        self.nested = nested
        if not self.fields:
            raise ToonError("option", "expected the names of fields, found none")
        if len(self.names) < len(self.fields):
            twice = Counter(self.fields).most_common(1)[0][0]
            raise ToonError("option", f"expected each field name once, found {excerpt(twice)} again")

    def cells(self, row: Mapping[str, Any] | Sequence[Any], number: int) -> tuple[Any, ...]:
        """The row's cells in the order of the fields, in exact JSON types; `number` counts rows from 0, for the error's path.

        Raises `value` for a row that does not fit, and for a cell what `encode` would raise.
        """
        if isinstance(row, Mapping):
            if row.keys() != self.names:
                raise _misfit(f"a row with the fields {self.fields}", repr(list(row)), number)
            cells = tuple([row[name] for name in self.fields])
        elif isinstance(row, Sequence) and not isinstance(row, str | bytes | bytearray):
            cells = tuple(row)
        else:
            raise _misfit("a row by its field names or as a list", type(row).__name__, number)
        if len(cells) != len(self.fields):
            raise _misfit(f"{len(self.fields)} cells", str(len(cells)), number)
        for cell in cells:
            kind = type(cell)
            if not (
                (kind is str and (cell.isascii() or _is_text(cell)))
                or kind in _SOUND
                or (kind is int and -_SHORT_INT < cell < _SHORT_INT)
            ):
                return tuple(self._plain(*pair, number) for pair in zip(self.fields, cells, strict=True))
        return cells

    def _plain(self, name: str, cell: Any, number: int) -> Any:
        from toon.normal import ROOT, plain

        value = plain(cell, ((ROOT, number), name))
        if not self.nested and type(value) not in SCALARS:
            path = path_text((number, name))
            raise ToonError("value", f"expected a primitive in a table's cell, found {type(cell).__name__}", path=path)
        return value


_SOUND = frozenset({float, bool, type(None)})
_SHORT_INT = 10**600
"""Integers below it become text whatever `sys.set_int_max_str_digits` says."""


def _field_name(name: object) -> str:
    if not isinstance(name, str):
        raise ToonError("option", f"expected field names of text, found {type(name).__name__}")
    text = str.__str__(name)
    if not _is_text(text):
        raise ToonError("option", f"expected a field name of text, found half a surrogate pair in {text!a}")
    return text


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _misfit(expected: str, found: str, number: int) -> ToonError:
    return ToonError("value", f"expected {expected}, found {found:.200}", path=f"[{number}]")


class RowWriter:
    """Writes a table whose number of rows is not known beforehand: its header once, then rows, a batch at a time.

    The text is `[0]{a,b}:` and the rows. It decodes whole with `strict=False` (section 14.4: a declared count never ends a table)
    and with `iter_rows(..., strict=False)`; the count check is the price. `toon.frames` keeps that check.

    A row is written completely or not at all: after a `ToonError` the writer can go on with the next row. When a `with` block ends by
    an exception, the rows before it are still written and the exception is raised.

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
        self._shape = RowShape(fields)
        self.fields = self._shape.fields
        if not isinstance(batch_rows, int):
            raise ToonError("option", f"expected batch_rows to be a number of rows, found {batch_rows!r}")
        self.batch_rows = batch_rows
        self.rows_written = 0
        self._write, self._indent, self._delimiter = write, indent, delimiter
        self._batch: list[tuple[Any, ...]] = []
        self._write(table_header(self.fields, indent, delimiter))

    def write(self, row: Mapping[str, Any] | Sequence[Any]) -> None:
        """Add one row, by field names or in the order of the fields; the caller may change it afterwards.

        Raises `value` where it does not fit, and what `encode` raises for a cell; the path counts the table's rows from 0.
        """
        self._batch.append(self._shape.cells(row, self.rows_written + len(self._batch)))
        if len(self._batch) >= self.batch_rows:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows. If the caller's `write` raises, they are not written again: part of them may have been written."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        self._write("\n" + row_lines(batch, self._indent, self._delimiter))
        self.rows_written += len(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, fault: BaseException | None, trace: object) -> None:
        held = len(self._batch)
        try:
            self.flush()
        except Exception as second:
            if fault is None:
                raise
            fault.add_note(f"the last {held} rows could not be written: {second}")


def table_header(fields: Iterable[str], indent: int, delimiter: str) -> str:
    """The header line of a root table of primitive fields whose number of rows is not known."""
    encoder = Encoder(indent, delimiter)
    encoder.rows("", None, [(name, None) for name in fields], [], 1, 0)
    return encoder.lines[0]


def row_lines(rows: Sequence[tuple[Any, ...]], indent: int, delimiter: str) -> str:
    """The lines of a root table's rows, whose cells are primitives in exact JSON types."""
    texts = [column_texts(column, delimiter) for column in zip(*rows, strict=True)]
    margin = "\n" + " " * indent
    return margin[1:] + margin.join(map(delimiter.join, zip(*texts, strict=True)))
