"""Values to text (specification sections 2, 3, 8 to 12). The form depends on the shape of the value alone.

A value of exact JSON types is encoded directly. If any other type is found, `toon.normal` converts the whole value first.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from toon.columns import FORMATS, SCALARS, NotPlainJson, column_texts
from toon.errors import ToonError
from toon.limits import DEFAULT_LIMITS
from toon.scalars import BARE, DELIMITERS, LITERALS, key_text, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def encode(value: Any, *, indent: int = 2, delimiter: str = ",") -> str:
    """The document of a value, without a newline at its end.

    `toon.normal` lists the accepted Python types and how they are encoded. Raises `ToonError`: `value` and `key` for what has no
    JSON form, `surrogate`, `limit` for more than 256 levels (a cyclic value has more) or an integer longer than Python prints.
    """
    return with_any_types(lambda plain_value: Encoder(indent, delimiter).document(plain_value), value)


def with_any_types(write: Callable[[Any], str], value: Any) -> str:
    """Encode directly, and normalise only if that meets a type that is not exact JSON, or invalid text."""
    try:
        text = write(value)
        if text.isascii() or text.encode():
            return text
    except (NotPlainJson, UnicodeEncodeError):
        pass
    except RecursionError:
        raise ToonError("limit", "expected fewer levels: Python's stack is used up (is the value cyclic?)") from None
    except ToonError:
        raise
    except ValueError:  # an integer longer than sys.get_int_max_str_digits()
        pass
    from toon.normal import plain

    try:
        return write(plain(value))
    except RecursionError:
        raise ToonError("limit", "expected fewer levels: Python's stack is used up (is the value cyclic?)") from None


class Encoder:
    """Collects the lines of one document."""

    def __init__(self, indent: int, delimiter: str) -> None:
        """Begin a document. Raises `option` for an indent or a delimiter that TOON does not have."""
        if not isinstance(delimiter, str) or delimiter not in DELIMITERS:
            raise ToonError("option", f"expected the delimiter ',', '\\t' or '|', found {delimiter!r}")
        if not isinstance(indent, int) or indent < 1:
            raise ToonError("option", f"expected indent to be a positive number of spaces, found {indent!r}")
        self.indent = indent
        self.delimiter = delimiter
        self.symbol = DELIMITERS[delimiter]
        self.bare = BARE[delimiter].fullmatch
        self.lines: list[str] = []

    def document(self, value: Any) -> str:
        """The root form of a value (section 5)."""
        kind = type(value)
        if kind is dict:
            table = self.entry_table(value, 1)
            if table is None:
                self.fields(value, 0, 1)
            else:
                self.rows("", value, *table, 1)
        elif kind is list:
            self.array("", value, 0, 1)
        elif kind is str and value[:1] == "\ufeff":
            return quoted(value)
        else:
            return self.scalar(value)
        return "\n".join(self.lines)

    def scalar(self, value: Any) -> str:
        """The text of a primitive."""
        if type(value) is str:
            return value if self.bare(value) else quoted(value)
        form = FORMATS.get(type(value))
        if form is None:
            raise NotPlainJson
        return form(value)

    def fields(self, value: dict[str, Any], level: int, depth: int) -> None:
        """An object's fields, at an indentation level, inside `depth` containers (itself included)."""
        if depth > DEFAULT_LIMITS.max_depth:
            raise _too_deep()
        pad = " " * (self.indent * level)
        add = self.lines.append
        bare = self.bare
        for key, item in value.items():
            if type(key) is not str:
                raise NotPlainJson
            name = key if key.isidentifier() and key.isascii() else key_text(key)
            kind = type(item)
            if kind is str:
                plain = (item.isidentifier() and item not in LITERALS) or bare(item)
                add(f"{pad}{name}: {item if plain else quoted(item)}")
            elif kind is dict:
                self.object_field(pad + name, item, level, depth + 1)
            elif kind is list:
                self.array(pad + name, item, level, depth + 1)
            elif kind in FORMATS:
                add(f"{pad}{name}: {FORMATS[kind](item)}")
            else:
                raise NotPlainJson

    def object_field(self, lead: str, value: dict[str, Any], level: int, depth: int) -> None:
        """An object under a key: keyed table or fields."""
        table = self.entry_table(value, depth)
        if table is not None:
            self.rows(lead, value, *table, level + 1)
            return
        self.lines.append(f"{lead}:")
        self.fields(value, level + 1, depth)

    def array(self, lead: str, value: list[Any], level: int, depth: int) -> None:
        """An array in an object's field or at the root (sections 9.1 to 9.4)."""
        if depth > DEFAULT_LIMITS.max_depth:
            raise _too_deep()
        if not value:
            self.lines.append(f"{lead}: []" if lead else "[]")
            return
        table = columns_of(value, depth + 1)
        if table is None:
            self.plain_array(lead, value, level, depth)
        else:
            self.rows(lead, None, *table, level + 1, len(value))

    def plain_array(self, lead: str, value: list[Any], level: int, depth: int) -> None:
        """An array on its header's line, or one item a line."""
        header = f"{lead}[{len(value)}{self.symbol}]:"
        if SCALARS.issuperset(map(type, value)):
            text = self.delimiter.join(column_texts(value, self.delimiter))
            self.lines.append(f"{header} {text}" if value else header)
            return
        self.lines.append(header)
        for item in value:
            self.item(item, level + 1, depth + 1)

    def item(self, value: Any, level: int, depth: int) -> None:
        """One list item (sections 9.4 and 10)."""
        pad = " " * (self.indent * level)
        if type(value) is dict:
            start = len(self.lines)
            self.fields(value, level + 1, depth)
            if value:
                self.lines[start] = f"{pad}- {self.lines[start][len(pad) + self.indent :]}"
            else:
                self.lines.append(f"{pad}-")
        elif type(value) is list:
            if depth > DEFAULT_LIMITS.max_depth:
                raise _too_deep()
            self.plain_array(f"{pad}- ", value, level, depth)
        else:
            self.lines.append(f"{pad}- {self.scalar(value)}")

    def entry_table(self, value: dict[str, Any], depth: int) -> tuple[Fields, list[Column]] | None:
        """The table of an object whose values are uniform objects (section 9.5)."""
        if len(value) < 2:
            return None
        entries = list(value.values())
        return columns_of(entries, depth + 1) if type(entries[0]) is dict else None

    def rows(
        self,
        lead: str,
        keys: dict[str, Any] | None,
        fields: Fields,
        columns: Sequence[Column],
        level: int,
        count: int = 0,
    ) -> None:
        """A table: its header, and all rows as one piece of text. With `keys`, a keyed table."""
        names = field_list(fields, self.delimiter)
        texts = [column_texts(values, self.delimiter, kinds) for values, kinds in columns]
        margin = "\n" + " " * (self.indent * level)
        lines = map(self.delimiter.join, zip(*texts, strict=True))
        if keys is None:
            self.lines.append(f"{lead}[{count}{self.symbol}]{names}:")
            self.lines.append(margin[1:] + margin.join(lines))
            return
        if any(type(key) is not str for key in keys):
            raise NotPlainJson
        self.lines.append(f"{lead}[{len(keys)}:{self.symbol}]{names}:")
        entries = [f"{key_text(key)}: {line}" for key, line in zip(keys, lines, strict=True)]
        self.lines.append(margin[1:] + margin.join(entries))


Fields = list[tuple[str, "Fields | None"]]
"""Names with their nested field groups (None for a leaf)."""
Column = tuple["Sequence[Any]", "set[type] | None"]
"""The values of a leaf field and their types, where these are known."""


def columns_of(rows: Sequence[Any], depth: int) -> tuple[Fields, list[Column]] | None:
    """The fields and leaf columns of uniform objects, or None where they are not uniform (section 9.3)."""
    if type(rows[0]) is not dict or not rows[0] or set(map(type, rows)) != {dict}:
        return None
    if depth > DEFAULT_LIMITS.max_depth:
        raise _too_deep()
    names = list(rows[0])
    if set(map(len, rows)) != {len(names)}:
        return None
    try:
        cells = list(map(itemgetter(*names), rows))
    except KeyError:
        return None
    columns: list[Any] = list(zip(*cells, strict=True)) if len(names) > 1 else [cells]
    fields: Fields = []
    leaves: list[Column] = []
    for name, column in zip(names, columns, strict=True):
        if type(name) is not str:
            raise NotPlainJson
        kinds = set(map(type, column))
        if kinds <= SCALARS:
            fields.append((name, None))
            leaves.append((column, kinds))
            continue
        group = columns_of(column, depth + 1)
        if group is None:
            return None
        fields.append((name, group[0]))
        leaves.extend(group[1])
    return fields, leaves


def field_list(fields: Fields, delimiter: str) -> str:
    """`{a,b{c,d}}`."""
    parts = [key_text(name) + (field_list(group, delimiter) if group else "") for name, group in fields]
    return f"{{{delimiter.join(parts)}}}"


def _too_deep() -> ToonError:
    return ToonError(
        "limit",
        f"expected at most {DEFAULT_LIMITS.max_depth} arrays and objects inside one another (is the value cyclic?)",
    )
