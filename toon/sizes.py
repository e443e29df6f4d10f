"""Compares the size of a value as JSON and as TOON, part by part; tokens are counted by any given counter.

TOON is smaller where many objects share their fields, and larger for single objects and arrays of arrays.
"""

from __future__ import annotations

import re
import sys
from json import dumps
from typing import Any, NamedTuple

from toon.columns import SCALARS, Verbatim
from toon.encode import columns_of, encode
from toon.errors import ToonError
from toon.fast_reader import FastReader
from toon.limits import Limits
from toon.lines import prepared
from toon.scalars import DELIMITERS, float_text
from toon.scopes import path_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIECE = re.compile(
    r"(?P<word> ?[A-Za-z]+)|(?P<joined>[^\w\s][A-Za-z]+)|(?P<digits>[0-9]{1,3})|(?P<marks> ?[^\w\s]+|_)"
    r"|(?P<line>\s*\n)|(?P<spaces>\s+)|(?P<other>\w)"
)
_TOKENS_PER_PIECE = {
    "word": 0.99,
    "joined": 1.61,
    "digits": 1.09,
    "marks": 0.74,
    "line": 0.99,
    "spaces": 0.83,
    "other": 0.23,
}
"""Least squares over 35 documents (7 values, each as JSON, pretty JSON and TOON with every delimiter), counted with o200k_base."""
_LONG_WORD = 7
_PER_FURTHER_LETTER = 0.51
_PER_FURTHER_MARK = 0.29


def estimated_tokens(text: str) -> int:
    """Tokens of JSON, TOON or English text as o200k_base would count them, without a tokenizer.

    Within 5 % of o200k_base on the 35 documents it was fitted to, within 8 % on 30 others (JSON and TOON of test fixtures and of
    word problems, Markdown). Not meant for code or for other vocabularies: give `stats` a real counter there.
    """
    total = 0.0
    for piece in _PIECE.finditer(text):
        kind, length = piece.lastgroup or "other", piece.end() - piece.start()
        total += _TOKENS_PER_PIECE[kind]
        if kind in {"word", "joined"} and length > _LONG_WORD:
            total += (length - _LONG_WORD) * _PER_FURTHER_LETTER
        elif kind == "marks" and length > 2:
            total += (length - 2) * _PER_FURTHER_MARK
    return round(total)


class Size(NamedTuple):
    """One form of the whole value."""

    form: str
    """`json`, `json-pretty`, `toon` (commas), `toon-tab` or `toon-pipe`."""
    size_bytes: int
    tokens: int


class Part(NamedTuple):
    """One array or object inside the value, taken as a document of its own."""

    path: str
    shape: str
    """`table`, `keyed table`, `values`, `array of arrays`, `mixed array`, `object`."""
    json_tokens: int
    toon_tokens: int

    @property
    def toon_loses(self) -> bool:
        """Whether compact JSON is smaller."""
        return self.toon_tokens > self.json_tokens


class Stats(NamedTuple):
    """The result of `stats`."""

    sizes: tuple[Size, ...]
    parts: tuple[Part, ...]
    """In document order, the whole value first."""
    estimated: bool
    """Whether tokens are estimates."""

    @property
    def smallest(self) -> Size:
        """The form with the fewest tokens."""
        return min(self.sizes, key=lambda size: size.tokens)

    @property
    def losses(self) -> list[Part]:
        """The parts where TOON takes more tokens than compact JSON, the largest difference first."""
        losing = [part for part in self.parts if part.toon_loses]
        return sorted(losing, key=lambda part: part.json_tokens - part.toon_tokens)


def stats(value: Any, *, count_tokens: Callable[[str], int] | None = None, levels: int = 3) -> Stats:
    """Compare the forms of a value, and TOON with compact JSON for every array and object down to `levels` levels.

    `count_tokens` is any callable from text to a number; without one, `estimated_tokens`. Raises what `encode` raises.
    """
    count = count_tokens or estimated_tokens
    text = encode(value)
    value = _common_value(text)
    marker = _unused_character(text)
    texts = {"json": _json_text(value, marker), "json-pretty": _json_text(value, marker, indent=2)}
    for name, delimiter in zip(("toon", "toon-tab", "toon-pipe"), DELIMITERS, strict=True):
        texts[name] = encode(value, delimiter=delimiter)
    sizes = tuple(Size(form, len(text.encode()), count(text)) for form, text in texts.items())
    parts = tuple(
        Part(path_text(names), shape_of(part), count(_json_text(part, marker)), count(encode(part)))
        for names, part in _containers(value, (), levels)
    )
    return Stats(sizes, parts, count_tokens is None)


def _containers(value: Any, names: tuple[str | int, ...], levels: int) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The arrays and objects of a value; what a table holds is part of the table."""
    if not isinstance(value, dict | list) or levels < 0:
        return
    yield names, value
    if shape_of(value) in {"object", "mixed array"}:
        children = value.items() if isinstance(value, dict) else enumerate(value)
        for name, child in children:
            yield from _containers(child, (*names, name), levels - 1)


def shape_of(value: dict[str, Any] | list[Any]) -> str:
    """The kind of a value, which decides whether TOON is smaller."""
    if isinstance(value, dict):
        entries = list(value.values())
        return "keyed table" if len(entries) > 1 and columns_of(entries, 1) else "object"
    if SCALARS.issuperset(map(type, value)):
        return "values"
    if columns_of(value, 1):
        return "table"
    return "array of arrays" if all(isinstance(item, list) for item in value) else "mixed array"


class Compact(NamedTuple):
    """The form of a value with the fewest tokens."""

    form: str
    """`toon` or `json`."""
    text: str


def compact(value: Any, *, count_tokens: Callable[[str], int] | None = None) -> Compact:
    """The value as TOON or as compact JSON, whichever has fewer tokens (TOON where they are equal)."""
    count = count_tokens or estimated_tokens
    toon = encode(value)
    json = _json_text(_common_value(toon), _unused_character(toon))
    return Compact("toon", toon) if count(toon) <= count(json) else Compact("json", json)


_UNBOUNDED = Limits(*[sys.maxsize] * len(Limits._fields))


def _common_value(text: str) -> Any:
    """The value that JSON and TOON share, read from our own TOON without limits, since writing has none either."""
    reader = FastReader(2, strict=True, limits=_UNBOUNDED, real=_number)
    reader.read(prepared(text))
    return reader.finish()


def _number(token: str) -> object:
    """A double, or the digits themselves where no double has them (a Decimal's)."""
    number = float(token)
    return number if repr(number) == token or float_text(number) == token else Verbatim(token)


def _json_text(value: Any, marker: str, indent: int | None = None) -> str:
    """JSON in which `Verbatim` is a number: `json` writes it as text that begins with a character found nowhere else."""
    separators = (",", ":") if indent is None else None
    try:
        text = dumps(_marked(value, marker), ensure_ascii=False, indent=indent, separators=separators)
    except RecursionError:
        raise ToonError("limit", "expected fewer levels: Python's stack is used up") from None
    return re.sub(f'"{marker}([^"]*)"', r"\1", text) if marker in text else text


def _marked(value: Any, marker: str) -> Any:
    if type(value) is Verbatim:
        return marker + value
    if isinstance(value, list):
        return value if _DIRECT.issuperset(map(type, value)) else [_marked(item, marker) for item in value]
    if isinstance(value, dict):
        if _DIRECT.issuperset(map(type, value.values())):
            return value
        return {key: _marked(item, marker) for key, item in value.items()}
    return value


_DIRECT = SCALARS - {Verbatim}


def _unused_character(text: str) -> str:
    """A private-use character that does not occur in a text."""
    used = set(text)
    return next(char for char in map(chr, range(0xE000, sys.maxunicode)) if char not in used)


def compact_json(value: Any) -> str:
    """JSON without spaces, all characters as themselves."""
    return dumps(value, ensure_ascii=False, separators=(",", ":"))
