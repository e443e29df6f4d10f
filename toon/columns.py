"""Converts primitive values to TOON text, one at a time or a whole column; both give the same text."""

from __future__ import annotations

from typing import Any

from toon.scalars import (
    BARE,
    COLUMN_UNSAFE,
    COLUMN_UNSAFE_START,
    NEEDS_ESCAPE_IN_COLUMN,
    float_text,
    quoted,
    string_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class NotPlainJson(Exception):
    """A value is not of an exact JSON type: `toon.normal` has to convert it first."""


class Verbatim(str):
    """A number's text, to be written as it is (a Decimal that `toon.normal` has put in canonical form)."""

    __slots__ = ()


def _literal(value: object) -> str:
    return "null" if value is None else "true" if value else "false"


FORMATS: dict[type, Callable[[Any], str]] = {
    int: int.__repr__,
    float: float_text,
    bool: _literal,
    type(None): _literal,
    Verbatim: str.__str__,
}
"""How a value of each primitive type but text is written."""

SCALARS = frozenset({str, *FORMATS})


def column_texts(values: Sequence[Any], delimiter: str, kinds: set[type] | None = None) -> Sequence[str]:
    """The text of each value of a column, whose types are `kinds`. Raises `NotPlainJson`."""
    if kinds is None:
        kinds = set(map(type, values))
    if kinds == {str}:
        return _string_texts(values, delimiter)
    if kinds == {int}:
        return list(map(int.__repr__, values))
    if kinds <= {int, float}:
        return _number_texts(values)
    bare = BARE[delimiter].fullmatch
    texts = []
    for value in values:
        if type(value) is str:
            texts.append(value if bare(value) else quoted(value))
        else:
            form = FORMATS.get(type(value))
            if form is None:
                raise NotPlainJson
            texts.append(form(value))
    return texts


def _string_texts(values: Sequence[str], delimiter: str) -> Sequence[str]:
    distinct = set(values)
    if 2 * len(distinct) > len(values):  # few values repeat: check all of them joined as one text
        joined = "\n".join(values)
        if _all_bare(joined, len(values), delimiter):
            return values
        if not NEEDS_ESCAPE_IN_COLUMN.search(joined) and joined.count("\n") == len(values) - 1:
            bare = BARE[delimiter].fullmatch
            return [value if bare(value) else f'"{value}"' for value in values]
    known = {value: string_text(value, delimiter) for value in distinct}
    return [known[value] for value in values]


def _all_bare(joined: str, count: int, delimiter: str) -> bool:
    return not (
        COLUMN_UNSAFE[delimiter].search(joined)
        or joined.count("\n") != count - 1
        or " \n" in joined
        or joined[-1:] == " "
        or COLUMN_UNSAFE_START.search(f"\n{joined}\n")
    )


def _number_texts(values: Sequence[float]) -> Sequence[str]:
    texts = list(map(repr, values))
    joined = ",".join(texts) + ","
    if "e" in joined or "n" in joined:
        return [
            text if type(value) is int else float_text(value, text) for value, text in zip(values, texts, strict=True)
        ]
    if ".0," in joined:
        return [text.removesuffix(".0") if text != "-0.0" else "0" for text in texts]
    return texts
