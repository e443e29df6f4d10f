"""Primitive values to the text they stand as, one at a time or a column at once; both ways must give the same text."""

from __future__ import annotations

from typing import Any

from toon.scalars import BARE, COLUMN_UNSAFE, COLUMN_UNSAFE_START, canonical, float_text, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Foreign(Exception):  # noqa: N818 - a signal inside the encoder, never an error for users
    """A value is not of an exact JSON type: `toon.normal` must see it first."""


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


def column_texts(values: Sequence[Any], delimiter: str) -> Sequence[str]:
    """The text of each value of a column. Raises `Foreign`."""
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
                raise Foreign
            texts.append(form(value))
    return texts


def _string_texts(values: Sequence[str], delimiter: str) -> Sequence[str]:
    joined = "\n".join(values)
    if (
        not COLUMN_UNSAFE[delimiter].search(joined)
        and joined.count("\n") == len(values) - 1
        and " \n" not in joined
        and joined[-1:] != " "
        and not COLUMN_UNSAFE_START.search(f"\n{joined}\n")
    ):
        return values
    bare = BARE[delimiter].fullmatch
    known = {value: value if bare(value) else quoted(value) for value in set(values)}
    return [known[value] for value in values]


def _number_texts(values: Sequence[float]) -> Sequence[str]:
    texts = list(map(repr, values))
    joined = ",".join(texts) + ","
    if "e" in joined or "n" in joined:
        return [float_text(value) if type(value) is float else text for value, text in zip(values, texts, strict=True)]
    if ".0," in joined:
        return [text.removesuffix(".0") if text != "-0.0" else "0" for text in texts]
    return texts
