"""Columns to a table document and back, without an object per row; the document is an ordinary one, `[N]{a,b}:` at its root."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toon.columns import SCALARS, NotPlainJson
from toon.documents import checked_indent, document_text
from toon.encode import Encoder, with_any_types
from toon.errors import ToonError
from toon.fast_reader import FastReader
from toon.headers import leaf_paths
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.scopes import END, TABLE, path_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from toon.headers import Header
    from toon.scopes import Scope


def encode_columns(columns: Mapping[str, Sequence[Any]], *, indent: int = 2, delimiter: str = ",") -> str:
    """The document of a table given by its columns: lists, tuples, other sequences, or numpy, pandas or Arrow columns of primitives.

    The same text as `encode` of the rows, except that a table without rows keeps its fields (`[0]{a,b}:`).
    Raises `ToonError`: `value` for columns of different lengths or cells that are no primitives, and what `encode` raises.
    """
    if not hasattr(columns, "items"):
        raise ToonError("value", f"expected columns by their names, found {type(columns).__name__}")
    lists = {name: column_values(name, column) for name, column in columns.items()}
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ToonError("value", f"expected columns of one length, found {lengths}")
    return with_any_types(lambda plain_lists: _document(plain_lists, indent, delimiter), lists)


def column_values(name: str, column: Sequence[Any]) -> Sequence[Any]:
    """A column as a list or tuple."""
    if isinstance(column, list | tuple):
        return column
    from toon.normal import ROOT, column_list

    values = column_list(column, (ROOT, name))
    if not isinstance(values, Sequence) or isinstance(values, str | bytes | bytearray):
        raise ToonError("value", f"expected a column of cells, found {type(column).__name__}", path=path_text([name]))
    return values if isinstance(values, list) else list(values)


def _document(columns: dict[str, Sequence[Any]], indent: int, delimiter: str) -> str:
    encoder = Encoder(indent, delimiter)
    if not columns:
        return "[]"
    for name, column in columns.items():
        if type(name) is not str or not SCALARS.issuperset(map(type, column)):
            _refuse_containers(name, column)
            raise NotPlainJson
    count = len(next(iter(columns.values())))
    encoder.rows(
        "", None, [(name, None) for name in columns], [(column, None) for column in columns.values()], 1, count
    )
    return "\n".join(encoder.lines[: 1 + bool(count)])


def _refuse_containers(name: str, column: Sequence[Any]) -> None:
    """Raise `value` for the first array or object among a column's cells."""
    for index, value in enumerate(column):
        if isinstance(value, dict | list):
            kind = type(value).__name__
            raise ToonError(
                "value", f"expected a primitive in a table's cell, found {kind}", path=path_text([name, index])
            )


def decode_columns(
    text: str | bytes, *, indent: int = 2, strict: bool = True, limits: Limits = DEFAULT_LIMITS
) -> dict[str, list[Any]]:
    """The columns of a document that is one table, in the order of its fields; a nested field is named `outer.inner`.

    Raises `ToonError`: `syntax` for a document that is no table, `duplicate` for two fields of one name, and what `decode` raises.
    """
    reader = RootTableReader(checked_indent(indent), strict, limits)
    reader.read(prepared(document_text(text, limits)))
    columns: dict[str, list[Any]] = reader.finish()
    return columns


def decode_tables(text: str | bytes, *, indent: int = 2, strict: bool = True, limits: Limits = DEFAULT_LIMITS) -> Any:
    """The value of any document, except that each table in it, wherever it stands, comes as its columns.

    Raises `ToonError`: `duplicate` for two fields of one name, and what `decode` raises.
    """
    reader = ColumnReader(checked_indent(indent), strict, limits)
    reader.read(prepared(document_text(text, limits)))
    return reader.finish()


class ColumnReader(FastReader):
    """Reads tables into columns."""

    def _container(self, header: Header) -> Any:
        if header.keyed or header.fields is None:
            return super()._container(header)
        names = [".".join(path) for path in leaf_paths(header.fields)]
        columns: dict[str, list[Any]] = {name: [] for name in names}
        if len(columns) < len(names):
            raise ToonError("duplicate", "expected each column name once", column=1)
        return columns

    def _add_rows(self, scope: Scope, header: Header, columns: list[list[object]], count: int) -> None:
        target: Any = scope.value
        for values, more in zip(target.values(), columns, strict=True):
            values.extend(more)


class RootTableReader(ColumnReader):
    """Reads one table and refuses any other document at its first line."""

    def _line(self, scope: Scope, content: str, offset: int) -> None:
        if scope.kind not in {TABLE, END}:
            raise _no_table()
        super()._line(scope, content, offset)

    def _open(self, kind: int, value: object, outer: Scope, name: str | int | None) -> Scope:
        if kind != TABLE:
            raise _no_table()
        return super()._open(kind, value, outer, name)

    def finish(self) -> Any:
        """Close the table; `[]` is one without columns. Raises `syntax` where the document is something else."""
        value = super().finish()
        if self.root.kind != END or not (isinstance(value, dict) or value == []):
            raise _no_table()
        return value or {}


def _no_table() -> ToonError:
    return ToonError("syntax", "expected a document that is one table, `[N]{a,b}:` and its rows")
