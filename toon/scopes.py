"""The arrays and objects that are still open while a document is read, and the path of a position in them."""

from __future__ import annotations

from toon.errors import ToonError
from toon.scalars import key_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from toon.headers import Header
    from toon.limits import Limits
    from toon.scalars import Real

OBJECT, LIST, TABLE, KEYED, END = range(5)
"""What a scope holds: fields, list items, rows, entry rows, or nothing more (the root value is complete)."""


class Scope:
    """An array or object that may get further lines."""

    __slots__ = (
        "careful_until",
        "count",
        "depth",
        "floor",
        "header",
        "kind",
        "name",
        "origin",
        "spanned",
        "value",
        "width",
    )

    def __init__(self, kind: int, value: object, floor: int, name: str | int | None, spanned: bool) -> None:
        """Open a scope whose first line is due at depth `floor`."""
        self.kind = kind
        self.value = value
        self.floor = floor
        self.depth = -1
        """Where its lines stand; -1 until the first one. More than `floor` only after a depth jump (section 14.4)."""
        self.width = -1
        """The spaces before its lines; -1 until the first one."""
        self.name = name
        """Its key or index in the scope around it; None for the root."""
        self.spanned = spanned
        """Whether it lies inside a header's span, where a blank line is an error (section 12)."""
        self.count = 0
        """Items, rows or entries so far."""
        self.careful_until = 0
        """Rows before this line (lines passed so far) are read one by one: together they were not plain."""
        self.header: Header | None = None
        self.origin: tuple[int, int, str] = (0, 0, "")
        """Line, column and text of the header, for a count that is not met."""

    def in_span(self) -> bool:
        """Whether a blank line before this scope's next line is inside a header's span."""
        return self.spanned or (self.count > 0 and self.kind in {LIST, TABLE, KEYED})


def path_text(names: Iterable[str | int | None]) -> str:
    """`runs.w03[2].loss`; keys that are not bare stand in quotes, and the root is empty."""
    parts = [f"[{name}]" if isinstance(name, int) else f".{key_text(name)}" for name in names if name is not None]
    return "".join(parts).removeprefix(".")


class ScopeStack:
    """The open scopes of one document and the reader's position. Finds the scope of a line, but does not interpret the line."""

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

    def _close_deeper(self, depth: int, width: int) -> Scope:
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
        most = "at most " if width > expected else ""
        return ToonError("depth", f"expected {most}{expected} spaces of indentation, found {width}", column=width + 1)

    def _close(self, scope: Scope) -> None:
        if scope.header is not None and scope.count != scope.header.length:
            self._miscounted(scope, scope.header.length, scope.count)

    def _miscounted(self, scope: Scope, declared: int, got: int) -> None:
        """The count of a header is wrong: an error if strict (section 14.1), accepted otherwise."""
        if not self.strict:
            return
        self.tail = () if scope.name is None else (scope.name,)
        what = {LIST: "items", TABLE: "rows", KEYED: "entries"}[scope.kind]
        line, column, source = scope.origin
        raise ToonError("count", f"expected {declared} {what}, found {got}", line=line, column=column, source=source)

    def _counted(self, scope: Scope, more: int = 1) -> None:
        """Count items, and raise at the first one above the declared count."""
        scope.count += more
        if scope.count > self.limits.max_rows:
            raise ToonError("limit", f"expected at most {self.limits.max_rows} rows under one header")
        assert scope.header is not None
        length = scope.header.length
        if self.strict and scope.count > length:
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
