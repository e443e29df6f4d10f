"""Reads as much as possible of a document that was cut off: a truncated file, a model's answer that ran out of tokens.

It repairs and guesses nothing: lines are read unchanged or left out, and missing parts are listed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from toon.decode import decode
from toon.documents import checked_indent
from toon.errors import ToonError
from toon.fast_reader import FastReader
from toon.headers import is_header, parse_header
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.scalars import split_unquoted
from toon.scopes import OBJECT, path_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toon.headers import Header
    from toon.scopes import Scope


class Missing(NamedTuple):
    """One place where something was cut off."""

    path: str
    declared: int | None
    """Values, items, rows or entries that the header promised; None for an object, which promises nothing."""
    got: int
    """How many of them there are, or how many fields the object has."""


def salvage(text: str | bytes, *, indent: int = 2, limits: Limits = DEFAULT_LIMITS) -> tuple[Any, list[Missing]]:
    """The complete part of a cut document, and what is missing from it, outermost first.

    A complete document gives the same as `decode`, with nothing missing. Otherwise the last line counts as incomplete unless it ends
    with a newline, because half a number looks like a number. Reading stops at the first faulty line. Raises only `limit` and
    `option`.
    """
    try:
        return decode(text, indent=indent, limits=limits), []
    except ToonError as fault:
        if fault.code in {"limit", "option"}:
            raise
    complete, _, torn = _well_formed(text).removeprefix("\ufeff").rpartition("\n")
    reader = _SalvageReader(checked_indent(indent), strict=True, limits=limits)
    reader.salvage(prepared(complete) if complete else [], torn.rstrip(" "))
    return reader.root.value, reader.missing


def _well_formed(text: str | bytes) -> str:
    """The characters before the first byte that is not UTF-8."""
    if isinstance(text, str):
        return text
    try:
        return str(text, "utf-8")
    except UnicodeDecodeError as fault:
        return str(text[: fault.start], "utf-8")


class _SalvageReader(FastReader):
    """Reads as far as possible, and records every count that is not met."""

    def __init__(self, indent: int, strict: bool, limits: Limits) -> None:
        super().__init__(indent, strict, limits)
        self.missing: list[Missing] = []

    def salvage(self, lines: list[str], torn: str) -> None:
        """Read the complete lines, then the certain part of the incomplete one, and list what is missing."""
        cut = bool(torn)
        try:
            self.read(lines)
            if torn:
                self.read([_certain_part(torn, self.limits)])
        except ToonError as fault:
            if fault.code == "limit":
                raise
            cut = True
            self._drop_empty_item()
        for depth, scope in enumerate(self.stack):
            path = path_text(outer.name for outer in self.stack[: depth + 1])
            if scope.header is not None:
                self._note(path, scope.header.length, len(scope.value))  # type: ignore[arg-type]
            elif cut and scope is self.stack[-1] and scope.kind == OBJECT:
                self.missing.append(Missing(path, None, len(scope.value)))  # type: ignore[arg-type]
        if not self.stack:
            self.missing.append(Missing("", None, 0))

    def _drop_empty_item(self) -> None:
        """Remove an item whose first field was faulty: its object was made before that field was read."""
        if len(self.stack) > 1 and self.stack[-1].value == {} and isinstance(self.stack[-2].value, list):
            self.stack.pop()
            items: Any = self.stack[-1].value
            items.pop()

    def _note(self, path: str, declared: int, got: int) -> None:
        if got < declared:
            self.missing.append(Missing(path, declared, got))

    def _miscounted(self, scope: Scope, declared: int, got: int) -> None:
        self._note(path_text([*(outer.name for outer in self.stack), scope.name]), declared, got)

    def _inline_miscounted(self, header: Header, got: int, offset: int) -> None:
        if got > header.length:
            super()._inline_miscounted(header, got, offset)
        self._note(self._path(), header.length, got)


def _certain_part(line: str, limits: Limits) -> str:
    """The certain part of an incomplete line: a header with its fields, an inline array without its last value, or else nothing."""
    indentation = line[: len(line) - len(line.lstrip(" "))]
    marker = "- " if line.lstrip(" ").startswith("- ") else ""
    content = line[len(indentation) + len(marker) :].lstrip(" ")
    if is_header(content):
        header = parse_header(content, limits, strict=True)
        values = split_unquoted(content[header.content_start :], header.delimiter)
        if header.fields is not None:
            return line
        if len(values) > 1:
            return line[: len(line) - len(values[-1]) - 1]
    return indentation + _NO_LINE


_NO_LINE = '"'
"""Neither a field nor an item nor an entry: it closes the scopes that the line's indentation closes, then fails."""
