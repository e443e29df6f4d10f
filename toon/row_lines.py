"""Reads the row lines of a table column by column. Knows nothing of the rest of the document and reports no faults."""

from __future__ import annotations

import re
from functools import lru_cache
from json import JSONDecoder
from math import inf
from typing import Any

from toon.errors import ToonError
from toon.scalars import (
    BARE_KEY,
    split_unquoted,
    token_value,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from toon.headers import Field, Header
    from toon.scalars import Real

# --- Reading ------------------------------------------------------------------------------------------------------------

_JSON_CELLS = re.compile(r"[-+0-9.eEtrufalsn,]++")
"""Cells of nothing but these characters mean the same in JSON as in TOON, or are no JSON at all."""
_SPECIAL_CELL = re.compile(r'\n(?:["\-0-9]|(?:true|false|null)\n)')
"""In cells joined with, between and around "\\n": one that is not simply the string it looks like."""


def read_entries(
    lines: list[str], pad: str, header: Header, real: Real, max_digits: int
) -> tuple[list[str], list[list[object]]] | None:
    """The keys and columns of some entry rows, or None if a line does not match exactly (then they are read one by one)."""
    keys, contents = [], []
    for line in lines:
        key, _, cells = line[len(pad) :].partition(":")
        cells = cells.lstrip(" ")
        if not cells or not BARE_KEY.fullmatch(key) or not line.startswith(pad):
            return None
        keys.append(key)
        contents.append(cells)
    columns = read_columns(contents, "", header, real, max_digits)
    return None if columns is None else (keys, columns)


def read_columns(lines: list[str], pad: str, header: Header, real: Real, max_digits: int) -> list[list[object]] | None:
    """The columns of some row lines, or None if a line does not match exactly."""
    body = "\n" + "\n".join(lines)
    margin = "\n" + pad
    if body.count(margin) != len(lines) or (header.delimiter == "\t" and margin + "\t" in body):
        return None
    plain: str | None = body
    if '"' in body or "\x00" in body or (":" in body and not header.keyed):
        plain = _masked(body, header)
    if plain is None:
        return None
    cells = _cells_at_once(plain[len(margin) :], margin, header, len(lines))
    if cells is None:
        return None
    hiding = header.delimiter if plain is not body and any(char in plain for char in _HIDDEN) else None
    try:
        if max(map(len, lines)) > max_digits:  # one cell may be a number that is too long
            if hiding:
                cells = [_uncovered(column, hiding) for column in cells]
            return [[token_value(cell.strip(" "), real, max_digits) for cell in column] for column in cells]
        return [column_values(column, real, hiding) for column in cells]
    except ToonError:
        return None  # reading the faulty row alone finds the same fault with its position


def _cells_at_once(body: str, margin: str, header: Header, count: int) -> list[list[str]] | None:
    """Cells by column, from rows without quotes: one replacement and one split for all of them."""
    cells = body.replace(margin, f"{header.delimiter}\n").split(header.delimiter)
    if len(cells) != header.width * count:
        return None
    columns = [cells[start :: header.width] for start in range(header.width)]
    # Every row's first cell but the very first now starts with "\n". That all of them lie in column 0 proves each row's width.
    first = "".join(columns[0])
    columns[0] = first.split("\n")
    # A blank there is further indentation (before a tab that delimits, `read_columns` has looked).
    deeper = first[:1] in _BLANKS or "\n " in first or "\n\t" in first
    return columns if len(columns[0]) == count and not deeper else None


_BLANKS = (" ", "\t")


_DELIMITER, _BACKSLASH, _QUOTE = _HIDDEN = "\x00\x01\x02"
"""What stands for a delimiter, `\\\\` and `\\"` inside quotes while rows are split."""


def _masked(body: str, header: Header) -> str | None:
    """The rows with delimiters inside quotes masked for splitting; None where the slow path has to decide.

    Once escaped quotes are hidden, every second piece between quotes lies inside them. That holds only if no backslash stands
    outside (there it escapes nothing), no quoted span crosses the end of a line, and a colon outside quotes is left to `is_row`.
    """
    if any(char in body for char in _HIDDEN):
        return None
    if "\\" in body:
        body = body.replace("\\\\", _BACKSLASH).replace('\\"', _QUOTE)
    pieces = body.split('"')
    outside = "".join(pieces[::2])
    inside = "".join(pieces[1::2])
    if len(pieces) % 2 == 0 or "\n" in inside or (":" in outside and not header.keyed):
        return None
    if "\\" in outside or _BACKSLASH in outside or _QUOTE in outside:
        return None
    if header.delimiter in inside:
        pieces[1::2] = [piece.replace(header.delimiter, _DELIMITER) for piece in pieces[1::2]]
        return '"'.join(pieces)
    return body


def _uncovered(cells: list[str], delimiter: str) -> list[str]:
    joined = "\n".join(cells)
    return joined.replace(_DELIMITER, delimiter).replace(_BACKSLASH, "\\\\").replace(_QUOTE, '\\"').split("\n")


def is_row(content: str, delimiter: str) -> bool:
    """Section 9.3: a line at row depth is a row unless a colon stands before its first delimiter, all outside quotes."""
    pieces = split_unquoted(content, ":")
    return len(pieces) == 1 or len(split_unquoted(pieces[0], delimiter)) > 1


def column_values(cells: list[str], real: Real = float, hiding: str | None = None) -> list[object]:
    """The values of a column's cells: the same as `token_value` of each, trimmed. With `hiding`, `_masked` may have hidden that delimiter."""
    joined = ",".join(cells)
    if _JSON_CELLS.fullmatch(joined):
        values = _json_values(joined, real)
        if values is not None and len(values) == len(cells):
            return values
    if " " in joined and (", " in joined or " ," in joined or joined[0] == " " or joined[-1] == " "):
        cells = [cell.strip(" ") for cell in cells]
    if hiding and any(char in joined for char in _HIDDEN):
        cells = _uncovered(cells, hiding)
    elif joined[:1] == '"' and "\\" not in joined:
        texts = _quoted_texts(cells)
        if texts is not None:
            return texts
    elif not _SPECIAL_CELL.search("\n" + "\n".join(cells) + "\n"):
        return cells  # type: ignore[return-value]
    known = {cell: token_value(cell, real) for cell in set(cells)}
    return [known[cell] for cell in cells]


def _quoted_texts(cells: list[str]) -> list[object] | None:
    """The text inside the quotes, where all cells are quoted and contain neither quotes nor escapes."""
    joined = "\n".join(cells)
    if joined.count('"') != 2 * len(cells) or joined.count('"\n"') != len(cells) - 1 or joined[-1] != '"':
        return None
    return joined[1:-1].split('"\n"')  # type: ignore[return-value]


def _json_values(joined: str, real: Real) -> list[object] | None:
    text = f"[{joined}]"
    try:
        values, end = _json_decoder(real).raw_decode(text)
    except ValueError:
        return None
    return None if end < len(text) or inf in values or -inf in values else values


@lru_cache(maxsize=4)
def _json_decoder(real: Real) -> JSONDecoder:
    return JSONDecoder(parse_float=None if real is float else real)


def rows_of(fields: tuple[Field, ...], columns: Iterator[list[object]], count: int) -> list[dict[str, object]]:
    """Objects from columns, nested field groups built first (section 9.3)."""
    parts = [next(columns) if field.group is None else rows_of(field.group, columns, count) for field in fields]
    names = [field.name for field in fields]
    rows = zip(*parts, strict=True)
    if count >= _MANY_ROWS and len(names) <= _FEW_NAMES:
        return _row_maker(len(names))(names, rows)
    return [dict(zip(names, row, strict=True)) for row in rows]


_MANY_ROWS, _FEW_NAMES = 100, 64


@lru_cache(maxsize=_FEW_NAMES)
def _row_maker(width: int) -> Callable[[list[str], Iterable[tuple[object, ...]]], list[dict[str, object]]]:
    """A function that makes rows with a dict display of this width: half the time of `dict(zip(...))`.

    Its source code depends on the width alone, as in `collections.namedtuple`; no text of a document is part of it.
    """
    keys = ", ".join(f"k{number}" for number in range(width))
    cells = ", ".join(f"c{number}" for number in range(width))
    pairs = ", ".join(f"k{number}: c{number}" for number in range(width))
    scope: dict[str, Any] = {}
    exec(f"def rows(names, rows):\n [{keys}] = names\n return [{{{pairs}}} for [{cells}] in rows]", scope)  # noqa: S102
    maker: Callable[[list[str], Iterable[tuple[object, ...]]], list[dict[str, object]]] = scope["rows"]
    return maker
