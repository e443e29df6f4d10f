"""Parses a header line (specification section 6), not the lines under it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from toon.errors import ToonError, excerpt
from toon.scalars import DELIMITERS, find_unquoted, unquoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from toon.limits import Limits


class Field(NamedTuple):
    """One entry of a field list."""

    name: str
    group: tuple[Field, ...] | None
    """The nested field group, or None for a leaf."""


class Header(NamedTuple):
    """`key[length:delimiter]{fields}:` and where its content starts."""

    key: str | None
    length: int
    keyed: bool
    delimiter: str
    fields: tuple[Field, ...] | None
    width: int
    """Leaf fields, that is cells in a row."""
    depth: int
    """How deep the field groups go; 1 for a flat list."""
    length_column: int
    content_start: int


_Fields = tuple[tuple[Field, ...], int, int, int]
"""Fields, width, depth, and where the list ends."""

UNREPRESENTABLE = 10**18
"""Stands for every declared length of more than 18 digits: no document meets it."""

_PLAIN = re.compile(r'[^"\[\]{}:]{0,64}+\[[0-9]{1,18}+\]:')
_BRACKET = re.compile(r"\[(0|[1-9][0-9]*)(:?)([\t|]?)\]")
_PLAIN_FIELDS = re.compile(r'\{[^"{}]*+\}')
_WORTH_KEEPING = 1000
"""Characters of the longest field list that is kept for the next header."""
_BRACKET_START = re.compile(r"\[(0|[1-9][0-9]*)?(:?)([\t|]?)")
_FIELD_PART = re.compile(r'[{},|\t]|(?:[^{},|\t"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))++', re.DOTALL)


def is_header(content: str) -> bool:
    """Whether a line's content is an array-header line (section 5.2, class 4)."""
    bracket = find_unquoted(content, "[")
    return 0 <= bracket < find_unquoted(content, ":")


def parse_header(content: str, limits: Limits, strict: bool) -> Header:
    """Parse an array-header line; columns in errors count from the start of `content`.

    Raises `header` for what breaks the grammar, `duplicate` for a repeated field name (strict), `limit`.
    """
    plain = _PLAIN.match(content)
    if plain is not None:  # documents repeat their headers: `[3]:`, `tags[2]:`
        return _parsed_before(plain[0], limits, strict)
    return _parsed(content, limits, strict)


@lru_cache(maxsize=512)
def _parsed_before(content: str, limits: Limits, strict: bool) -> Header:
    return _parsed(content, limits, strict)


def _parsed(content: str, limits: Limits, strict: bool) -> Header:
    start = find_unquoted(content, "[")
    key = _key(content[:start]) if start else None
    bracket = _BRACKET.match(content, start)
    if bracket is None:
        raise _bracket_fault(content, start)
    digits, keyed, symbol = bracket.groups()
    delimiter = symbol or ","
    fields, width, depth, end = None, 0, 0, bracket.end()
    if content[end : end + 1] == "{":
        fields, width, depth, end = _field_list(content, end, delimiter, limits, strict)
    elif keyed:
        raise ToonError("header", "expected a field list {...} after a keyed length", column=end + 1)
    if content[end : end + 1] != ":":
        raise ToonError("header", f"expected ':' here, found {_found(content, end)}", column=end + 1)
    if fields is not None and content[end + 1 :].strip(" "):
        raise ToonError("header", "expected nothing after the ':' of a header with fields", column=end + 2)
    length = int(digits) if len(digits) <= 18 else UNREPRESENTABLE
    return Header(key, length, bool(keyed), delimiter, fields, width, depth, start + 2, end + 1)


def _key(token: str) -> str:
    if token[-1] in " \t":
        raise ToonError("header", "expected '[' directly after the key, found whitespace", column=len(token))
    return unquoted(token) if token[0] == '"' else token


def _found(content: str, position: int) -> str:
    return excerpt(content[position]) if position < len(content) else "the end of the line"


def _bracket_fault(content: str, start: int) -> ToonError:
    partial = _BRACKET_START.match(content, start)
    assert partial is not None  # it starts with the bracket that brought us here
    end, expected = partial.end(), "']'"
    if not partial[1] or (partial[1] == "0" and content[end : end + 1].isdigit()):
        end, expected = start + 1, "a length without leading zeros"
    return ToonError("header", f"expected {expected}, found {_found(content, end)}", column=end + 1)


def _field_list(content: str, start: int, delimiter: str, limits: Limits, strict: bool) -> _Fields:
    plain = _PLAIN_FIELDS.match(content, start)
    if plain is not None and plain.end() - start <= _WORTH_KEEPING:
        try:
            fields, width, depth, length = _kept_field_list(plain[0], delimiter, limits, strict)
        except ToonError as fault:
            raise fault.with_column_offset(start) from None
        return fields, width, depth, start + length
    return _FieldList(content, start, delimiter, limits, strict).parse()


@lru_cache(maxsize=256)
def _kept_field_list(text: str, delimiter: str, limits: Limits, strict: bool) -> _Fields:
    """Cached field lists of repeated tables, with columns counted from the brace."""
    return _FieldList(text, 0, delimiter, limits, strict).parse()


class _FieldList:
    """Reads one brace-enclosed field list without recursion, so that depth costs memory only."""

    def __init__(self, content: str, start: int, delimiter: str, limits: Limits, strict: bool) -> None:
        self.content, self.start, self.delimiter = content, start, delimiter
        self.limits, self.strict = limits, strict
        self.width = 0
        self.depth = 0
        self.lists: list[list[Field]] = []
        self.names: list[set[str]] = []
        self.owners: list[str] = []

    def parse(self) -> _Fields:
        """The fields, their width, their depth, and where the closing brace ends."""
        pending, after_group = "", False
        for part in _FIELD_PART.finditer(self.content, self.start):
            text, column = part[0], part.start() + 1
            if text == "{":
                self._open(pending, after_group, column)
                pending, after_group = "", False
            elif text == "}" or text in DELIMITERS:
                self._close_entry(text, pending, after_group, column)
                pending, after_group = "", text == "}"
                if after_group:
                    fields = tuple(self.lists.pop())
                    self.names.pop()
                    if not self.lists:
                        return fields, self.width, self.depth, part.end()
                    self.lists[-1].append(Field(self.owners.pop(), fields))
            else:
                pending = text
        raise ToonError("header", "expected '}' before the end of the line", column=len(self.content) + 1)

    def _open(self, pending: str, after_group: bool, column: int) -> None:
        if self.lists:
            if after_group or not pending.strip(" "):
                raise ToonError("header", "expected a field name before '{'", column=column)
            if pending[-1] in " \t":
                raise ToonError(
                    "header", "expected '{' directly after the field name, found whitespace", column=column - 1
                )
            self.owners.append(self._name(pending.lstrip(" "), column))
        self.lists.append([])
        self.names.append(set())
        self.depth = max(self.depth, len(self.lists))
        if self.depth > self.limits.max_depth:
            raise ToonError("limit", f"expected at most {self.limits.max_depth} levels of fields", column=column)

    def _close_entry(self, text: str, pending: str, after_group: bool, column: int) -> None:
        if text not in {"}", self.delimiter}:
            raise ToonError(
                "header", f"expected the declared delimiter {self.delimiter!r}, found {text!r}", column=column
            )
        name = pending.strip(" ")
        if after_group:
            if name:
                raise ToonError(
                    "header", f"expected ',' or '}}' after a field group, found {excerpt(name)}", column=column
                )
            return
        if not name:
            raise ToonError("header", f"expected a field name, found {text!r}", column=column)
        self.width += 1
        if self.width > self.limits.max_columns:
            raise ToonError("limit", f"expected at most {self.limits.max_columns} fields in a header", column=column)
        self.lists[-1].append(Field(self._name(name, column), None))

    def _name(self, token: str, column: int) -> str:
        name = unquoted(token) if token[0] == '"' else token
        if name in self.names[-1] and self.strict:
            raise ToonError(
                "duplicate", f"expected each field once, found {excerpt(name)} again", column=column - len(token)
            )
        self.names[-1].add(name)
        return name


def leaf_paths(fields: tuple[Field, ...]) -> Iterator[tuple[str, ...]]:
    """The names that lead to each cell of a row, in the order of the cells."""
    for field in fields:
        if field.group is None:
            yield (field.name,)
        else:
            yield from ((field.name, *names) for names in leaf_paths(field.group))
