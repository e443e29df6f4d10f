"""The decoder's machine: takes prepared lines one after the other and builds the value, whatever pieces the text came in.

A stack of open scopes stands for the indentation. Nothing recurses, so depth costs memory only. It reads no files and no bytes.
"""

from __future__ import annotations

import re
from itertools import count, islice, takewhile
from typing import Any

from toon.errors import ToonError, shown
from toon.headers import Header, is_header, leaf_paths, parse_header
from toon.lines import COMMENT
from toon.scalars import LITERALS, find_unquoted, split_unquoted, token_value, unquoted
from toon.scopes import END, KEYED, LIST, OBJECT, TABLE, Scope, path_text
from toon.rows import is_row, read_columns, read_entries, rows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from toon.limits import Limits
    from toon.scalars import Real

ROWS_AT_ONCE = 4096
"""Rows turned into columns together: enough to make each step long, few enough to keep memory flat."""

_KEY = "[A-Za-z_][A-Za-z0-9_.]*+"
_FIELD = re.compile(rf" *+({_KEY}): ([^ ].*+)", re.DOTALL)
"""`key: token`"""
_LINE = re.compile(rf"( *+)(- )?({_KEY})?(?:\[(0|[1-9][0-9]{{0,8}})\])?:(?: ([^ ].*+))?", re.DOTALL)
"""That, `key:`, `key[N]: values`, `- key: token`, `- [N]: values`: as encoders write them. Other spellings take the long way."""
_OPENING = re.compile(rf" *+({_KEY}):")
_ARRAY_ITEM = re.compile(r"( *+)- \[([1-9][0-9]{0,3})\]: (?! )")
_ENOUGH_ARRAYS = 8
_MEANS_MORE = frozenset('"-0123456789[')
_UNKNOWN = object()


def _content_column(source: str) -> int:
    return len(source) - len(source.lstrip(" \t")) + 1


def _all_new(keys: list[str], entries: dict[str, object]) -> bool:
    return len(set(keys)) == len(keys) and entries.keys().isdisjoint(keys)


class Reader:
    """Builds one document's value from its lines."""

    def __init__(self, indent: int, strict: bool, limits: Limits, real: Real = float) -> None:
        """Begin a document; `real` makes the values of numbers with a fraction or an exponent."""
        self.indent = indent
        self.strict = strict
        self.limits = limits
        self.real = real
        self.lines_before = 0
        """Lines read by earlier calls."""
        self.line = 0
        """The line being read, counting from 1."""
        self.source = ""
        self.tail: tuple[str | int, ...] = ()
        """What is being read inside the innermost scope, for the path of an error."""
        self.blank_line = 0
        """The first of the blank lines just passed, or 0."""
        self.root = Scope(OBJECT, {}, 0, None, spanned=False)
        self.stack: list[Scope] = []

    def finish(self) -> Any:
        """Close what is open and return the value; an empty document is an empty object (section 5)."""
        self.tail = ()
        try:
            while len(self.stack) > 1:
                self._close(self.stack.pop())
        except ToonError as fault:
            raise fault.placed(self.line, self.source, _content_column(self.source), self._path()) from None
        return self.root.value

    def read(self, lines: list[str]) -> None:
        """Take further lines. After an error the reader is of no more use."""
        index = 0
        try:
            while index < len(lines):
                index = self._read(lines, index)
        except ToonError as fault:
            raise fault.placed(self.line, self.source, _content_column(self.source), self._path()) from None
        self.lines_before += len(lines)

    def _read(self, lines: list[str], index: int) -> int:
        """Read plain fields of one object for as long as they come, then one line of whatever else; return where it stopped."""
        if not self.stack:
            self._begin_plainly(lines[index])
        if self.stack and not self.blank_line:
            kind = self.stack[-1].kind
            if kind in {TABLE, KEYED}:
                index = self._plain_rows(self.stack[-1], lines, index)
            elif kind == LIST:
                index = self._plain_arrays(self.stack[-1], lines, index)
            if kind in {OBJECT, LIST} and index < len(lines):
                index = self._plain_fields(lines, index)
            if index == len(lines):
                return index
        line = lines[index]
        self.line, self.source = self.lines_before + index + 1, line
        if line == COMMENT:
            return index + 1
        if not line or not (self.strict or line.strip(" \t")):
            self.blank_line = self.blank_line or self.line
            return index + 1
        self.tail = ()
        width, depth = self._indentation(line)
        if self.stack:
            self._line(self._settled(depth, width), line[width:], width)
        else:
            self._first_line(line[width:], depth)
        return index + 1

    def _begin_plainly(self, line: str) -> None:
        """Open the root object at once where the first line is one of its fields beyond doubt."""
        found = _LINE.fullmatch(line)
        if found is not None and found.start(3) == 0:
            self.root.depth = self.root.width = self.blank_line = 0
            self.stack.append(self.root)

    def _plain_fields(self, lines: list[str], index: int) -> int:
        """The quick way for the commonest lines; stops at any other, and at any fault.

        It decides nothing itself: a line it stops at is read the long way, which finds the fault and knows where it stands.
        """
        strict, real, max_digits = self.strict, self.real, self.limits.max_digits
        field = _FIELD.fullmatch
        scope: Scope | None = self.stack[-1]
        assert scope is not None
        target: Any = scope.value
        width = scope.width if scope.kind == OBJECT else -1
        number = index
        try:
            for number in range(index, len(lines)):
                found = field(lines[number])
                if found is None:
                    scope = self._opened_plainly(lines[number], scope, width) or self._plain_line(lines[number])
                elif found.start(1) != width:
                    scope = self._object_at(found.start(1))
                if scope is None:
                    return number
                if found is None or found.start(1) != width:
                    target = scope.value
                    width = scope.width if scope.kind == OBJECT else -1
                if found is not None:
                    key, token = found.groups()
                    if strict and key in target:
                        return number
                    if token[0] in _MEANS_MORE:
                        target[key] = [] if token == "[]" else token_value(token, real, max_digits)
                    else:
                        target[key] = LITERALS[token] if token in LITERALS else token
        except ToonError:
            return number
        return len(lines)

    def _opened_plainly(self, line: str, scope: Scope, width: int) -> Scope | None:
        """`key:` where the innermost object's fields stand."""
        found = _OPENING.fullmatch(line)
        target: Any = scope.value
        if found is None or found.start(1) != width or found[1] in target or len(self.stack) >= self.limits.max_depth:
            return None
        target[found[1]] = value = {}
        opened = Scope(OBJECT, value, scope.depth + 1, found[1], scope.spanned)
        self.stack.append(opened)
        return opened

    def _plain_line(self, line: str) -> Scope | None:
        """Read one line of `_LINE` wherever it stands; the scope it leaves innermost, or None with nothing read."""
        found = _LINE.fullmatch(line)
        if found is None or len(self.stack) + 2 > self.limits.max_depth:
            return None
        lead, marker, key, length, token = found.groups()
        value = self._plain_value(length, token)
        if value is _UNKNOWN:
            return None
        if marker is not None:
            scope = self._item_at(len(lead), key, value) if key is not None or length is not None else None
        else:
            scope = self._object_at(len(lead)) if key is not None else None
        if scope is None or scope.kind == LIST:
            return scope
        target: Any = scope.value
        if self.strict and key in target:
            return None
        target[key] = value
        if token is not None or length is not None:
            return scope
        scope = Scope(OBJECT, value, scope.depth + 1, key, scope.spanned)
        self.stack.append(scope)
        return scope

    def _plain_value(self, length: str | None, token: str | None) -> Any:
        """The value after a plain line's colon. Raises what its tokens raise."""
        real, max_digits = self.real, self.limits.max_digits
        if length is None:
            return {} if token is None else [] if token == "[]" else token_value(token, real, max_digits)
        if token is None or '"' in token:
            return _UNKNOWN
        pieces = token.split(",")
        if len(pieces) != int(length) or len(pieces) > self.limits.max_rows:
            return _UNKNOWN
        return [token_value(piece.strip(" "), real, max_digits) for piece in pieces]

    def _object_at(self, width: int) -> Scope | None:
        """The open object whose fields stand at this width, if nothing but objects must be closed to get there."""
        stack = self.stack
        while (scope := stack[-1]).kind == OBJECT:
            if scope.width == width:
                return scope
            first_width = scope.floor * self.indent
            if width >= first_width:
                if scope.width >= 0 or width > first_width:
                    return None
                scope.depth, scope.width = scope.floor, width
                return scope
            stack.pop()
        return None

    def _item_at(self, width: int, key: str | None, value: object) -> Scope | None:
        """Begin a list item whose marker stands at this width, under the same condition: an object, or without a key the value."""
        stack = self.stack
        while (scope := stack[-1]).kind == OBJECT and width < scope.floor * self.indent:
            stack.pop()
        if scope.kind != LIST or width != (scope.width if scope.width >= 0 else scope.floor * self.indent):
            return None
        assert scope.header is not None
        if (
            scope.count >= (scope.header.length if self.strict else self.limits.max_rows)
            or len(stack) >= self.limits.max_depth
        ):
            return None
        scope.depth, scope.width = width // self.indent, width
        scope.count += 1
        items: Any = scope.value
        if key is None:
            items.append(value)
            return scope
        fields = Scope(OBJECT, {}, scope.depth + 1, scope.count - 1, spanned=True)
        fields.depth, fields.width = fields.floor, fields.floor * self.indent
        items.append(fields.value)
        stack.append(fields)
        return fields

    # --- Where a line belongs -------------------------------------------------------------------------------------------

    def _indentation(self, line: str) -> tuple[int, int]:
        """Characters and levels before a line's content (section 12)."""
        if self.strict:
            width = len(line) - len(line.lstrip(" "))
            if line[width] == "\t":
                raise ToonError("indent", "expected spaces as indentation, found a tab", column=width + 1)
            depth, odd = divmod(width, self.indent)
            if odd:
                raise ToonError(
                    "indent", f"expected a multiple of {self.indent} spaces, found {width}", column=width + 1
                )
            return width, depth
        width = len(line) - len(line.lstrip(" \t"))
        tabs = line.count("\t", 0, width)
        return width, tabs + (width - tabs) // self.indent

    def _settled(self, depth: int, width: int) -> Scope:
        """Close the scopes that a line at this depth ends, and return the one it belongs to."""
        stack = self.stack
        scope = stack[-1]
        while depth < scope.floor:
            self._close(stack.pop())
            scope = stack[-1]
        if scope.depth < 0:
            if depth > scope.floor and self.strict:
                raise self._misplaced(width, scope.floor * self.indent)
            scope.depth = depth
            scope.width = depth * self.indent
        elif depth != scope.depth:
            raise self._misplaced(width, scope.depth * self.indent)
        if self.blank_line:
            if self.strict and scope.in_span():
                self.line, self.source = self.blank_line, ""
                raise ToonError("blank", "expected no blank line between the lines of one header", column=1)
            self.blank_line = 0
        return scope

    def _misplaced(self, width: int, expected: int) -> ToonError:
        return ToonError("depth", f"expected at most {expected} spaces of indentation, found {width}", column=width + 1)

    def _close(self, scope: Scope) -> None:
        if scope.header is not None and scope.count != scope.header.length:
            self._miscounted(scope, scope.header.length, scope.count)

    def _miscounted(self, scope: Scope, declared: int, got: int) -> None:
        """A header's count is not met: an error where strict (section 14.1), accepted otherwise."""
        if not self.strict:
            return
        self.tail = () if scope.name is None else (scope.name,)
        what = {LIST: "items", TABLE: "rows", KEYED: "entries"}[scope.kind]
        line, column, source = scope.origin
        raise ToonError("count", f"expected {declared} {what}, found {got}", line=line, column=column, source=source)

    def _counted(self, scope: Scope, more: int = 1) -> None:
        """Count items, and stop at the first one too many rather than at the end."""
        scope.count += more
        if scope.count > self.limits.max_rows:
            raise ToonError("limit", f"expected at most {self.limits.max_rows} rows under one header")
        assert scope.header is not None
        if self.strict and scope.count > scope.header.length:
            self._overfull(scope)

    def _overfull(self, scope: Scope) -> None:
        length = scope.header.length if scope.header else 0
        raise ToonError("count", f"expected {length} as declared in line {scope.origin[0]}, found another one")

    def _path(self) -> str:
        return path_text([*(scope.name for scope in self.stack), *self.tail])

    def _open(self, kind: int, value: object, outer: Scope, name: str | int | None) -> Scope:
        """Open a scope inside another; its lines are due one level deeper than the other's."""
        scope = Scope(kind, value, outer.depth + 1, name, outer.in_span())
        self.stack.append(scope)
        self._check_depth(0)
        return scope

    def _check_depth(self, more: int) -> None:
        if len(self.stack) - (self.root.kind == END) + more > self.limits.max_depth:
            raise ToonError("limit", f"expected at most {self.limits.max_depth} arrays and objects inside one another")

    # --- What a line says -----------------------------------------------------------------------------------------------

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
            raise ToonError("syntax", f"expected 'key: value', found no ':' in {shown(content)}", column=offset + 1)
        if 0 <= find_unquoted(content, "[") < colon:
            self._header(scope, content, offset)
            return
        key = self._key(content[:colon], offset)
        self._check_new(scope, key, offset)
        rest = content[colon + 1 :]
        token = rest.lstrip(" ")
        target: Any = scope.value
        if not token:
            target[key] = value = {}
            self._open(OBJECT, value, scope, key)
        else:
            self.tail = (key,)
            target[key] = [] if token == "[]" else self._token(token, offset + len(content) - len(token))

    def _item(self, scope: Scope, content: str, offset: int) -> None:
        """One list item (sections 9.4 and 10)."""
        if content != "-" and content[:2] != "- ":
            raise ToonError("syntax", f"expected a list item '- ...', found {shown(content)}", column=offset + 1)
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
            fault.column = (fault.column or 1) + offset
            raise
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
            value = {} if header.keyed else []
        if scope.kind == OBJECT:
            target[header.key] = value
        if not inline:
            self._open_header(scope, header, value, offset)
        return value

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
            fault.column = (fault.column or 1) + offset
            raise

    def _check_new(self, scope: Scope, key: str, offset: int) -> None:
        target: Any = scope.value
        if self.strict and key in target:
            self.tail = (key,)
            raise ToonError("duplicate", f"expected each key once, found {shown(key)} again", column=offset + 1)

    def _token(self, token: str, offset: int) -> object:
        try:
            return token_value(token, self.real, self.limits.max_digits)
        except ToonError as fault:
            fault.column = (fault.column or 1) + offset
            raise

    def _tokens(self, tokens: list[str], offset: int, names: Iterable[tuple[str | int, ...]]) -> list[object]:
        """The values of untrimmed tokens that stand one delimiter apart, each with its name below the current place."""
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

    def _plain_rows(self, scope: Scope, lines: list[str], index: int) -> int:
        """Many rows or entries at once, column by column; stops where a line needs a look of its own."""
        header = scope.header
        assert header is not None
        pad = " " * (scope.width if scope.width >= 0 else scope.floor * self.indent)
        while index < len(lines) and self.lines_before + index >= scope.careful_until and lines[index].startswith(pad):
            room = header.length - scope.count
            if room <= 0 and self.strict:
                break
            block = lines[index : index + min(room if room > 0 else ROWS_AT_ONCE, ROWS_AT_ONCE)]
            rows = [line for line in block if line != COMMENT] if COMMENT in block else block
            if not self._taken(scope, header, rows, pad):
                scope.careful_until = self.lines_before + index + len(block)
                break
            scope.depth, scope.width = len(pad) // self.indent, len(pad)
            index += len(block)
        return index

    def _taken(self, scope: Scope, header: Header, lines: list[str], pad: str) -> bool:
        """Read the lines together if that can be done; False leaves everything as it was."""
        if scope.count + len(lines) > self.limits.max_rows:
            return False
        if not header.keyed:
            columns = read_columns(lines, pad, header, self.real, self.limits.max_digits)
            if columns is None:
                return False
            self._add_rows(scope, header, columns, len(lines))
        else:
            entries: Any = scope.value
            read = read_entries(lines, pad, header, self.real, self.limits.max_digits)
            if read is None or (self.strict and not _all_new(read[0], entries)):
                return False
            assert header.fields is not None
            entries.update(zip(read[0], rows_of(header.fields, iter(read[1]), len(lines)), strict=True))
        scope.count += len(lines)
        return True

    def _add_rows(self, scope: Scope, header: Header, columns: list[list[object]], count: int) -> None:
        """Put the rows of some columns where they belong."""
        assert header.fields is not None
        rows: Any = scope.value
        rows.extend(rows_of(header.fields, iter(columns), count))

    def _plain_arrays(self, scope: Scope, lines: list[str], index: int) -> int:
        """Items that are arrays of one length, `- [3]: 1,2,3`, at once: they are rows by another name."""
        found = _ARRAY_ITEM.match(lines[index])
        width = scope.width if scope.width >= 0 else scope.floor * self.indent
        if found is None or found.end(1) != width or len(self.stack) + 2 > self.limits.max_depth:
            return index
        assert scope.header is not None
        room = scope.header.length - scope.count if self.strict else ROWS_AT_ONCE
        block = list(takewhile(lambda line: line.startswith(found[0]), islice(lines, index, index + min(room, ROWS_AT_ONCE))))
        if len(block) < _ENOUGH_ARRAYS or scope.count + len(block) > self.limits.max_rows:
            return index
        row = Header(None, 0, keyed=True, delimiter=",", fields=None, width=int(found[2]), depth=0, length_column=0, content_start=0)
        columns = read_columns(block, found[0], row, self.real, self.limits.max_digits)
        if columns is None:
            return index
        items: Any = scope.value
        items.extend(map(list, zip(*columns, strict=True)))
        scope.depth, scope.width = width // self.indent, width
        scope.count += len(block)
        return index + len(block)

    def _row(self, scope: Scope, content: str, offset: int) -> None:
        """One row of a table (section 9.3)."""
        header = scope.header
        assert header is not None
        self.tail = (scope.count,)
        if not is_row(content, header.delimiter):
            raise ToonError(
                "syntax", f"expected a row, found {shown(content)} with a ':' before any delimiter", column=offset + 1
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
                "syntax", f"expected an entry 'key: cells', found no ':' in {shown(content)}", column=offset + 1
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
