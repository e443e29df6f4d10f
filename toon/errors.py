"""The one exception of this package: a reason, a position, and the faulty line with a caret under it.

Readers raise it with a code, a reason and a column; callers that know the line and the path add them with `with_position`.
"""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "value",  # the encoder was given something that has no JSON meaning
    "key",  # a mapping key that is neither text nor an integer
    "surrogate",  # text with half a surrogate pair: not representable in UTF-8
    "option",  # a wrong argument: indent, delimiter, schema
    "utf8",  # bytes that are not UTF-8
    "syntax",  # a line that fits nothing expected at its place
    "header",  # a bracket, a length or a field list that breaks section 6
    "string",  # a quoted token that is not closed, or goes on after its quote
    "escape",  # a backslash followed by something other than section 7.1 allows
    "number",  # a number outside the numeric domain
    "indent",  # indentation that is no multiple of the unit, or holds a tab
    "depth",  # a line deeper than its scope allows
    "blank",  # a blank line between the items, rows or entries of one header
    "count",  # more or fewer values, items, rows or entries than declared
    "width",  # a row with more or fewer cells than its header has fields
    "duplicate",  # the same key twice in one object, or the same field twice in one list
    "trailing",  # content after the end of the document
    "limit",  # one of `toon.Limits` was passed
    "schema",  # a value of another type than the schema asks for
]

EXCERPT_COLUMNS = 100


class ToonError(ValueError):
    """Every failure of this package.

    `line` and `column` count from 1 (columns are characters), `path` names the value (`runs.w03[2].loss`, empty for the root),
    `source` is the faulty line. Unknown parts are None (or empty, for the path).
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        *,
        line: int | None = None,
        column: int | None = None,
        path: str = "",
        source: str | None = None,
    ) -> None:
        """Store the parts; the message is built when it is read."""
        super().__init__(code, reason)
        self.code: Code = code
        self.reason = reason
        self.line = line
        self.column = column
        self.path = path
        self.source = source

    def with_position(self, line: int, source: str, column: int, path: str) -> ToonError:
        """Fill in whatever part of the position is still missing, and return self."""
        if self.line is None:
            self.line, self.source = line, source
            self.column = column if self.column is None else self.column
        self.path = self.path or path
        return self

    def with_column_offset(self, columns: int) -> ToonError:
        """Add an offset to the column, and return self."""
        self.column = (self.column or 1) + columns
        return self

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line is not None else []
        if self.column is not None:
            where.append(f"column {self.column}")
        if self.path:
            where.append(f"at {_shortened(self.path)}")
        message = f"{', '.join(where)}: {self.reason}" if where else self.reason
        return message + self._excerpt()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuilt, (self.code, self.reason, self.line, self.column, self.path, self.source)

    def _excerpt(self) -> str:
        """The faulty line with a caret; of a long line the part around the caret."""
        if self.source is None or self.column is None:
            return ""
        start = max(0, self.column - 1 - EXCERPT_COLUMNS // 2) if len(self.source) > EXCERPT_COLUMNS else 0
        shown = self.source[start : start + EXCERPT_COLUMNS]
        visible = "".join(char if char.isprintable() else "\N{MIDDLE DOT}" for char in shown)
        return f"\n    {visible}\n    {' ' * (self.column - 1 - start)}^"


def _shortened(path: str) -> str:
    return path if len(path) <= EXCERPT_COLUMNS else f"{path[:48]} ... {path[-48:]}"


def _rebuilt(code: Code, reason: str, line: int | None, column: int | None, path: str, source: str | None) -> ToonError:
    return ToonError(code, reason, line=line, column=column, path=path, source=source)


def excerpt(text: str) -> str:
    """Text for an error message: escaped, and cut after forty characters."""
    return ascii(text) if len(text) <= 40 else f"{text[:40]!a}... ({len(text)} characters)"
