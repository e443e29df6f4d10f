"""Fast paths for `toon.document_reader`: common lines are read by pattern, and rows and items are read together as columns.

They report no errors. A line that does not match exactly is left to the slow path, which finds the fault and describes it; a test
reads valid and damaged documents both ways and compares values, errors and positions.
"""

from __future__ import annotations

import re
from itertools import islice, takewhile
from typing import Any

from toon.document_reader import Reader
from toon.errors import ToonError
from toon.headers import Header
from toon.lines import COMMENT
from toon.row_lines import column_values, read_columns, read_entries, rows_of
from toon.scalars import EMPTY_ARRAY, LITERALS, token_value, unquoted
from toon.scopes import KEYED, LIST, OBJECT, TABLE, Scope

ROWS_AT_ONCE = 4096
"""Rows turned into columns together: enough to make each step long, few enough to keep memory flat."""

_KEY = "[A-Za-z_][A-Za-z0-9_.]*+"
_LINE = re.compile(rf"( *+)(- )?({_KEY})?(?:\[(0|[1-9][0-9]{{0,8}})\])?:(?: *+([^ ].*+))?", re.DOTALL)
"""`key: token`, `key:`, `key[N]: values`, `- key: token`, `- [N]: values`: as encoders write them. Other spellings take the long way."""
_ITEM = re.compile(r"( *+)- (?:\[([1-9][0-9]{0,3})\]: )?(?![ \[])")
_ENOUGH_ITEMS = 8
_MEANS_MORE = frozenset(' "-0123456789[')
_REAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17}+)\.[0-9]++")
"""A number with a fraction that is finite beyond doubt."""
_UNKNOWN = object()


def _all_new(keys: list[str], entries: dict[str, object]) -> bool:
    return len(set(keys)) == len(keys) and entries.keys().isdisjoint(keys)


class FastReader(Reader):
    """A reader with fast paths."""

    def _read_fast(self, lines: list[str], index: int) -> int:
        """Read lines by the fast paths; return the index of the first line that needs the slow path."""
        if not self.stack:
            self._begin_fast(lines[index])
        if self.stack and not self.blank_line:
            kind = self.stack[-1].kind
            if kind in {TABLE, KEYED}:
                index = self._fast_rows(self.stack[-1], lines, index)
            elif kind == LIST:
                index = self._fast_items(self.stack[-1], lines, index)
            if kind in {OBJECT, LIST} and index < len(lines):
                index = self._fast_fields(lines, index)
        return index

    def _begin_fast(self, line: str) -> None:
        """Open the root object at once if the first line matches one of its fields exactly."""
        found = _LINE.fullmatch(line)
        if found is not None and found.start(3) == 0:
            self.root.depth = self.root.width = self.blank_line = 0
            self.stack.append(self.root)

    def _fast_fields(self, lines: list[str], index: int) -> int:
        """The fast path for the most common lines, `key: token` and `key:`; stops at any other line, and at any fault.

        The line where it stops is read by the slow path, which reports a fault with its position.
        """
        strict, real, max_digits, most = self.strict, self.real, self.limits.max_digits, self.limits.max_depth
        scope = self.stack[-1]
        target: Any = scope.value
        width = scope.width if scope.kind == OBJECT else -1
        number = index
        try:
            for number in range(index, len(lines)):
                line = lines[number]
                lead, colon, token = line.partition(": ")
                key = lead.lstrip(" ")
                opens = not colon and key[-1:] == ":"
                name = key[:-1] if opens else key
                if not (colon or opens) or not name.isidentifier() or not name.isascii():
                    inner = self._fast_line(line)
                    if inner is None:
                        return number
                    scope, target = inner, inner.value
                    width = scope.width if scope.kind == OBJECT else -1
                    continue
                if len(lead) - len(key) != width:
                    width = len(lead) - len(key)
                    inner = self._object_at(width)
                    if inner is None:
                        return number
                    scope, target = inner, inner.value
                if strict and name in target:
                    return number
                if opens:
                    if name in target or len(self.stack) >= most:
                        return number
                    target[name] = target = {}
                    scope = Scope(OBJECT, target, scope.depth + 1, name, scope.spanned)
                    self.stack.append(scope)
                    width = -1
                    continue
                if token[0] not in _MEANS_MORE:
                    target[name] = LITERALS[token] if token in LITERALS else token  # noqa: SIM401 - a third of `get`'s time
                elif token[0] == '"':
                    target[name] = unquoted(token)
                elif _REAL.fullmatch(token) and len(token) <= max_digits:
                    target[name] = real(token)
                else:
                    token = token.lstrip(" ")
                    target[name] = [] if token == EMPTY_ARRAY else token_value(token, real, max_digits)
        except ToonError:
            return number
        return len(lines)

    def _fast_line(self, line: str) -> Scope | None:
        """Read one line that matches `_LINE`; returns the innermost scope after it, or None with nothing read."""
        found = _LINE.fullmatch(line)
        if found is None or len(self.stack) + 2 > self.limits.max_depth:
            return None
        lead, marker, key, length, token = found.groups()
        value = self._fast_value(length, token)
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

    def _fast_value(self, length: str | None, token: str | None) -> Any:
        """The value after a plain line's colon. Raises what its tokens raise."""
        real, max_digits = self.real, self.limits.max_digits
        if length is None:
            return {} if token is None else [] if token == EMPTY_ARRAY else token_value(token, real, max_digits)
        if token is None or '"' in token:
            return _UNKNOWN
        pieces = token.split(",")
        if len(pieces) != int(length) or len(pieces) > self.limits.max_rows:
            return _UNKNOWN
        if " " in token:
            pieces = [piece.strip(" ") for piece in pieces]
        return [
            token_value(piece, real, max_digits) if piece[:1] in _MEANS_MORE else LITERALS.get(piece, piece)
            for piece in pieces
        ]

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
        """Begin a list item whose marker is at this width, under the same condition: an object, or a value if it has no key."""
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

    # --- Rows and items together --------------------------------------------------

    def _fast_rows(self, scope: Scope, lines: list[str], index: int) -> int:
        """Many rows or entries at once, column by column; stops at a line that needs the slow path."""
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
        """Read the lines together if possible; False leaves everything unchanged."""
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

    def _fast_items(self, scope: Scope, lines: list[str], index: int) -> int:
        """Many items at once that are arrays of one length, `- [3]: 1,2,3`, or bare scalars, `- x`; they are read like rows."""
        found = _ITEM.match(lines[index])
        width = scope.width if scope.width >= 0 else scope.floor * self.indent
        careful = self.lines_before + index < scope.careful_until or len(self.stack) + 2 > self.limits.max_depth
        if found is None or found.end(1) != width or careful:
            return index
        assert scope.header is not None
        room = min(scope.header.length - scope.count if self.strict else ROWS_AT_ONCE, ROWS_AT_ONCE)
        block = list(takewhile(lambda line: line.startswith(found[0]), islice(lines, index, index + room)))
        items = self._together(block, found[0], found[2]) if len(block) >= _ENOUGH_ITEMS else None
        if items is None or scope.count + len(block) > self.limits.max_rows:
            scope.careful_until = self.lines_before + index + len(block)
            return index
        target: Any = scope.value
        target.extend(items)
        scope.depth, scope.width = width // self.indent, width
        scope.count += len(block)
        return index + len(block)

    def _together(self, block: list[str], lead: str, length: str | None) -> list[object] | None:
        """The values of items with the same beginning, as columns; None if one needs the slow path."""
        real, max_digits = self.real, self.limits.max_digits
        if length is not None:
            row = Header(
                None,
                0,
                keyed=True,
                delimiter=",",
                fields=None,
                width=int(length),
                depth=0,
                length_column=0,
                content_start=0,
            )
            columns = read_columns(block, lead, row, real, max_digits)
            return None if columns is None else list(map(list, zip(*columns, strict=True)))
        if any(":" in line or "[" in line or '"' in line or len(line) > max_digits for line in block):
            return None
        try:
            return column_values([line[len(lead) :].lstrip(" ") for line in block], real)
        except ToonError:
            return None
