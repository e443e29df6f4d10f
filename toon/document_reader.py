"""The decoder: takes prepared lines one after the other and builds the value, in whatever pieces the text arrives.

A stack of open scopes represents the indentation. Nothing recurses, so depth costs memory only. This slow path follows the
specification line by line and reports all errors; `toon.fast_reader` adds fast paths with the same results.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

from toon.errors import ToonError, excerpt
from toon.headers import Header, is_header, leaf_paths, parse_header
from toon.lines import COMMENT
from toon.row_lines import is_row, rows_of
from toon.scalars import EMPTY_ARRAY, find_unquoted, split_unquoted, token_value, unquoted
from toon.scopes import END, KEYED, LIST, OBJECT, TABLE, Scope, ScopeStack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


_INDENTATION = re.compile(r"[ \t]*+")


def _content_column(source: str) -> int:
    """Where a line's content begins; a pattern finds it without copying a line of megabytes."""
    found = _INDENTATION.match(source)
    assert found is not None
    return found.end() + 1


class Reader(ScopeStack):
    """Builds one document's value from its lines."""

    def finish(self) -> Any:
        """Close what is open and return the value; an empty document is an empty object (section 5)."""
        self.tail = ()
        try:
            while len(self.stack) > 1:
                self._close(self.stack.pop())
        except ToonError as fault:
            raise fault.with_position(self.line, self.source, _content_column(self.source), self._path()) from None
        return self.root.value

    def read(self, lines: list[str]) -> None:
        """Read further lines. After an error the reader cannot be used any more."""
        index = 0
        try:
            while index < len(lines):
                index = self._read(lines, index)
        except ToonError as fault:
            path = self._path() if fault.code != "indent" else ""  # no scope can take such a line
            raise fault.with_position(self.line, self.source, _content_column(self.source), path) from None
        self.lines_before += len(lines)

    def _read(self, lines: list[str], index: int) -> int:
        """Read as many lines as possible by the fast paths, then one by the slow path; return the index of the next."""
        index = self._read_fast(lines, index)
        if index == len(lines):
            return index
        while lines[index] == COMMENT or (not lines[index] and self.blank_line):
            index += 1
            if index == len(lines):
                return index
        line = lines[index]
        self.line, self.source = self.lines_before + index + 1, line
        if not line or not (self.strict or line.strip(" \t")):
            self.blank_line = self.blank_line or self.line
            return index + 1
        self.tail = ()
        width, depth = self._indentation(line)
        if self.stack:
            self._line(self._close_deeper(depth, width), line[width:], width)
        else:
            self._first_line(line[width:], depth)
        return index + 1

    def _read_fast(self, lines: list[str], index: int) -> int:
        """No fast path here; `toon.fast_reader` has them."""
        return index

    # --- Lines by their form --------------------------------------------------------------------------------------------

    def _first_line(self, content: str, depth: int) -> None:
        """Find the root form (section 5)."""
        if depth:
            raise ToonError("depth", "expected the first line without indentation")
        self.blank_line = 0
        root = self.root
        root.depth = root.width = 0
        self.stack.append(root)
        if content == "[]":
            root.kind, root.value = END, []
        elif find_unquoted(content, ":") < 0:
            root.kind, root.value = END, self._token(content, 0)
        elif is_header(content) and content[0] == "[":
            root.kind = END
            root.value = self._header(root, content, 0)
        else:
            self._line(root, content, 0)

    def _line(self, scope: Scope, content: str, offset: int) -> None:
        """Read one line that belongs to a scope; `offset` is the width of its indentation."""
        if scope.kind == OBJECT:
            self._field(scope, content, offset)
        elif scope.kind == TABLE:
            self._row(scope, content, offset)
        elif scope.kind == LIST:
            self._item(scope, content, offset)
        elif scope.kind == KEYED:
            self._entry(scope, content, offset)
        else:
            raise ToonError(
                "trailing", "expected the end of the document: its root value is complete", column=offset + 1
            )

    def _field(self, scope: Scope, content: str, offset: int) -> None:
        colon = find_unquoted(content, ":")
        if colon < 0:
            raise ToonError("syntax", f"expected 'key: value', found no ':' in {excerpt(content)}", column=offset + 1)
        if 0 <= find_unquoted(content, "[") < colon:
            self._header(scope, content, offset)
            return
        key = self._key(content[:colon], offset)
        self._check_new(scope, key, offset)
        token = content[colon + 1 :].lstrip(" ")
        target: Any = scope.value
        if not token:
            target[key] = {}
            self._open(OBJECT, target[key], scope, key)
        else:
            self.tail = (key,)
            target[key] = [] if token == EMPTY_ARRAY else self._token(token, offset + len(content) - len(token))

    def _item(self, scope: Scope, content: str, offset: int) -> None:
        """One list item (sections 9.4 and 10)."""
        if content != "-" and content[:2] != "- ":
            raise ToonError("syntax", f"expected a list item '- ...', found {excerpt(content)}", column=offset + 1)
        index = scope.count
        self.tail = (index,)
        self._counted(scope)
        items: Any = scope.value
        rest = content[1:].lstrip(" ")
        offset += len(content) - len(rest)
        colon = find_unquoted(rest, ":")
        if colon < 0:
            items.append({} if not rest else [] if rest == "[]" else self._token(rest, offset))
        elif rest[0] == "[" and is_header(rest):
            items.append(self._header(scope, rest, offset))
        else:
            items.append({})
            fields = self._open(OBJECT, items[-1], scope, index)
            fields.depth = fields.floor
            fields.width = fields.depth * self.indent
            self.tail = ()
            self._field(fields, rest, offset)

    def _header(self, scope: Scope, content: str, offset: int) -> Any:
        """Open or fill what a header declares, under its key in an object; return its value."""
        try:
            header = parse_header(content, self.limits, self.strict)
        except ToonError as fault:
            raise fault.with_column_offset(offset) from None
        target: Any = scope.value
        if scope.kind == OBJECT:
            if header.key is None:
                raise ToonError(
                    "header",
                    "expected a key before '[': a header without one opens a document or a list item",
                    column=offset + 1,
                )
            self._check_new(scope, header.key, offset)
            self.tail = (header.key,)
        elif scope.kind == LIST and header.fields is not None:
            raise ToonError(
                "header",
                "expected no fields in a header without a key: only a document may begin so",
                column=offset + 1,
            )
        inline = content[header.content_start :].strip(" ")
        if inline:
            value: Any = self._inline(header, inline, offset + len(content) - len(inline))
        else:
            value = self._container(header)
        if scope.kind == OBJECT:
            target[header.key] = value
        if not inline:
            self._open_header(scope, header, value, offset)
        return value

    def _container(self, header: Header) -> Any:
        """The container for the lines under a header."""
        return {} if header.keyed else []

    def _open_header(self, scope: Scope, header: Header, value: object, offset: int) -> None:
        kind = KEYED if header.keyed else TABLE if header.fields is not None else LIST
        opened = self._open(kind, value, scope, self.tail[0] if self.tail else None)
        self._check_depth(header.depth)
        opened.header = header
        opened.origin = (self.line, offset + header.length_column, self.source)

    def _inline(self, header: Header, text: str, offset: int) -> list[object]:
        """A primitive array on its header's line (section 9.1)."""
        self._check_depth(1)
        tokens = split_unquoted(text, header.delimiter)
        if len(tokens) > self.limits.max_rows:
            raise ToonError("limit", f"expected at most {self.limits.max_rows} values under one header")
        if len(tokens) != header.length:
            self._inline_miscounted(header, len(tokens), offset)
        return self._tokens(tokens, offset, ((index,) for index in count()))

    def _inline_miscounted(self, header: Header, got: int, offset: int) -> None:
        if self.strict:
            raise ToonError("count", f"expected {header.length} values, found {got}", column=offset + 1)

    def _key(self, token: str, offset: int) -> str:
        token = token.strip(" ")
        if token[:1] != '"':
            return token
        try:
            return unquoted(token)
        except ToonError as fault:
            raise fault.with_column_offset(offset) from None

    def _check_new(self, scope: Scope, key: str, offset: int) -> None:
        target: Any = scope.value
        if self.strict and key in target:
            self.tail = (key,)
            raise ToonError("duplicate", f"expected each key once, found {excerpt(key)} again", column=offset + 1)

    def _token(self, token: str, offset: int) -> object:
        try:
            return token_value(token, self.real, self.limits.max_digits)
        except ToonError as fault:
            raise fault.with_column_offset(offset) from None

    def _tokens(self, tokens: list[str], offset: int, names: Iterable[tuple[str | int, ...]]) -> list[object]:
        """The values of untrimmed tokens separated by delimiters, each with its name below the current path."""
        try:
            return [token_value(token.strip(" "), self.real, self.limits.max_digits) for token in tokens]
        except ToonError:
            pass  # once more, to find out which
        outer = self.tail
        values = []
        for token, name in zip(tokens, names, strict=False):
            self.tail = outer + name
            values.append(self._token(token.strip(" "), offset + len(token) - len(token.lstrip(" "))))
            offset += len(token) + 1
        self.tail = outer
        return values

    # --- Rows -----------------------------------------------------------------------------------------------------------

    def _add_rows(self, scope: Scope, header: Header, columns: list[list[object]], count: int) -> None:
        """Add the rows of some columns to their container."""
        assert header.fields is not None
        rows: Any = scope.value
        rows.extend(rows_of(header.fields, iter(columns), count))

    def _row(self, scope: Scope, content: str, offset: int) -> None:
        """One row of a table (section 9.3)."""
        header = scope.header
        assert header is not None
        self.tail = (scope.count,)
        if not is_row(content, header.delimiter):
            raise ToonError(
                "syntax", f"expected a row, found {excerpt(content)} with a ':' before any delimiter", column=offset + 1
            )
        columns = self._cells(header, content, offset)
        self._counted(scope)
        self._add_rows(scope, header, columns, 1)

    def _entry(self, scope: Scope, content: str, offset: int) -> None:
        """One entry row of a keyed table (section 9.5)."""
        header = scope.header
        assert header is not None
        colon = find_unquoted(content, ":")
        if colon < 0:
            raise ToonError(
                "syntax", f"expected an entry 'key: cells', found no ':' in {excerpt(content)}", column=offset + 1
            )
        key = self._key(content[:colon], offset)
        self.tail = (key,)
        self._check_new(scope, key, offset)
        entries: Any = scope.value
        cells = content[colon + 1 :].lstrip(" ")
        columns = self._cells(header, cells, offset + len(content) - len(cells))
        self._counted(scope)
        assert header.fields is not None
        entries[key] = rows_of(header.fields, iter(columns), 1)[0]

    def _cells(self, header: Header, text: str, offset: int) -> list[list[object]]:
        """One row's cells, as columns of one value each."""
        assert header.fields is not None
        tokens = split_unquoted(text, header.delimiter) if text else []
        if len(tokens) != header.width:
            raise ToonError("width", f"expected {header.width} cells, found {len(tokens)}", column=offset + 1)
        values = self._tokens(tokens, offset, leaf_paths(header.fields))
        return [[value] for value in values]
