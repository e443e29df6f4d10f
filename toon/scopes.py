"""The arrays and objects that are still open while a document is read, and the path that names a place among them."""

from __future__ import annotations

from toon.scalars import key_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from toon.headers import Header

OBJECT, LIST, TABLE, KEYED, END = range(5)
"""What a scope holds: fields, list items, rows, entry rows, or nothing more (the root value is complete)."""


class Scope:
    """An array or object whose lines may still come."""

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
