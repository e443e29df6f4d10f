"""Text that knows whose each of its characters is: a string that carries marks through whatever a chat template does with it.

A message's words go into the template as `Traced` strings; in what comes out, the runs of a message's characters are its own and
all others are the template's.  Operations that are not followed give plain text, so that words can get lost but never change hands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, SupportsIndex

Owner = int
"""Index of a message, or one of the constants below."""
TOOLS = -1
"""The list of tools."""
MIXED = -2
"""Words of several owners, in a way that cannot be told apart."""

Run = tuple[int, Owner | None]
"""So many characters of an owner; None: the template's."""


class Traced(str):
    __slots__ = ("_runs",)
    _runs: tuple[Run, ...]

    def __new__(cls, text: str, runs: Iterable[Run]) -> Self:
        made = super().__new__(cls, text)
        made._runs = _merged(runs)
        return made

    def __str__(self) -> str:
        return self

    # ---- joining ----

    def __add__(self, other: str) -> str:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> str:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> str:
        return joined([self] * count.__index__())

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> str:
        return _wholly(self, str.__mod__(self, values))

    def __rmod__(self, form: str) -> str:
        before, mark, after = form.partition("%s")
        return (
            joined((before, self, after))
            if mark and "%" not in before + after
            else str.__mod__(form, str.__str__(self))
        )

    def join(self, pieces: Iterable[str]) -> str:
        return joined_by(self, pieces)

    # ---- taking apart ----

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice):
            at = range(len(self))[key]
            return _cut(self, at, at + 1)
        start, stop, step = key.indices(len(self))
        if step == 1:
            return _cut(self, start, max(start, stop))
        return joined([_cut(self, at, at + 1) for at in range(start, stop, step)])

    def __iter__(self) -> Iterator[str]:
        return (_cut(self, at, at + 1) for at in range(len(self)))

    def strip(self, chars: str | None = None) -> str:
        start = len(self) - len(str.lstrip(self, chars))
        return _cut(self, start, max(start, len(str.rstrip(self, chars))))

    def lstrip(self, chars: str | None = None) -> str:
        return _cut(self, len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None) -> str:
        return _cut(self, 0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str) -> str:
        return _cut(self, len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str) -> str:
        return _cut(self, 0, len(self) - len(suffix) if suffix and self.endswith(suffix) else len(self))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return _located(self, str.split(self, sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return _located(self, str.rsplit(self, sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = _located(self, str.splitlines(self, True))
        return whole if keepends else [line[: len(str.splitlines(line)[0])] for line in whole]

    def partition(self, sep: str) -> tuple[str, str, str]:
        at = str.find(self, sep)
        return (self, "", "") if at < 0 else (self[:at], self[at : at + len(sep)], self[at + len(sep) :])

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        at = str.rfind(self, sep)
        return ("", "", self) if at < 0 else (self[:at], self[at : at + len(sep)], self[at + len(sep) :])

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        if not old:
            return _wholly(self, str.replace(self, old, new, count))
        pieces, at, left = [], 0, count.__index__()
        while left and (found := str.find(self, old, at)) >= 0:
            pieces += [_cut(self, at, found), new]
            at, left = found + len(old), left - 1
        return joined([*pieces, _cut(self, at, len(self))])

    # ---- changing letters ----

    def upper(self) -> str:
        return _alike(self, str.upper(self))

    def lower(self) -> str:
        return _alike(self, str.lower(self))

    def casefold(self) -> str:
        return _alike(self, str.casefold(self))

    def title(self) -> str:
        return _alike(self, str.title(self))

    def capitalize(self) -> str:
        return _alike(self, str.capitalize(self))


def owned(text: str, owner: Owner) -> Traced:
    return Traced(text, ((len(text), owner),))


def traced(value: Any, owner: Owner) -> Any:
    """The same value with all texts in it owned, names of keys too."""
    match value:
        case str():
            return owned(value, owner)
        case dict():
            return {traced(key, owner): traced(entry, owner) for key, entry in value.items()}
        case list():
            return [traced(entry, owner) for entry in value]
        case _:
            return value


def runs_of(text: str) -> tuple[Run, ...]:
    if isinstance(text, Traced):
        return text._runs
    return ((len(text), None),) if text else ()


def unmarked(text: str) -> str:
    return str.__str__(text)


def joined(pieces: Iterable[str]) -> str:
    """`"".join` that keeps whose the characters are."""
    listed = list(pieces)
    whole = "".join(listed)
    if not any(isinstance(piece, Traced) for piece in listed):
        return whole
    return Traced(whole, [run for piece in listed for run in runs_of(piece)])


def joined_by(separator: str, pieces: Iterable[str]) -> str:
    listed = list(pieces)
    return joined([entry for piece in listed for entry in (separator, piece)][1:])


def dumped(value: Any, dump: Callable[[Any], str] = json.dumps) -> str:
    """A value as JSON; the text belongs to whom its words do."""
    owners = set(_owners(value))
    text = dump(value)
    return owned(text, owners.pop() if len(owners) == 1 else MIXED) if owners else text


def _owners(value: Any) -> Iterator[Owner]:
    match value:
        case Traced():
            yield from (owner for _, owner in value._runs if owner is not None)
        case dict():
            for key, entry in value.items():
                yield from _owners(key)
                yield from _owners(entry)
        case list() | tuple():
            for entry in value:
                yield from _owners(entry)
        case _:
            pass


def _merged(runs: Iterable[Run]) -> tuple[Run, ...]:
    merged: list[Run] = []
    for length, owner in runs:
        if merged and merged[-1][1] == owner:
            merged[-1] = (merged[-1][0] + length, owner)
        elif length:
            merged.append((length, owner))
    return tuple(merged)


def _cut(text: Traced, start: int, stop: int) -> Traced:
    runs, at = [], 0
    for length, owner in text._runs:
        runs.append((max(0, min(at + length, stop) - max(at, start)), owner))
        at += length
    return Traced(str.__getitem__(text, slice(start, stop)), runs)


def _located(text: Traced, parts: list[str], separator: str | None = None) -> list[str]:
    """The parts of a text that follow each other in it, with their owners."""
    found: list[str] = []
    at = 0
    for number, part in enumerate(parts):
        start = at + len(separator) * (number > 0) if separator else str.find(text, part, at)
        found.append(_cut(text, start, start + len(part)))
        at = start + len(part)
    return found


def _alike(text: Traced, changed: str) -> str:
    """A text whose letters were changed one by one."""
    return Traced(changed, text._runs) if len(changed) == len(text) else _wholly(text, changed)


def _wholly(text: Traced, changed: str) -> str:
    """What was made of a text as a whole: its sole owner's, else nobody's in particular."""
    owners = [owner for _, owner in text._runs]
    sole = owners[0] if len(owners) == 1 else None
    return owned(changed, MIXED if sole is None else sole)
