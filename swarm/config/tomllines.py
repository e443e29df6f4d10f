"""Where each key of a TOML text stands, which the standard library's parser does not say.

A TOML text is a row of statements, each of which is TOML by itself: a header, or a key with its value.  So the parser finds them
too: a statement is as few lines as it takes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

Steps = tuple[str | int, ...]
LINES_AT_MOST = 200
"""Of a statement: what stands behind a longer one has no line, since finding its end takes time with the square of its lines."""


class Place(NamedTuple):
    line: int
    column: int
    """From 1, both."""


def places(text: str) -> dict[Steps, Place]:
    """By key path, of a text that is TOML; what stands in a value has the place of its statement."""
    found: dict[Steps, Place] = {}
    tables: dict[Steps, int] = {}
    within: Steps = ()
    for place, statement, value in _statements(text):
        if statement.startswith("["):
            within = _header(value, tables)
            for end in range(1, len(within) + 1):
                found.setdefault(within[:end], place)
        else:
            for steps in _below(value, within):
                found.setdefault(steps, place)
    return found


def _statements(text: str) -> Iterator[tuple[Place, str, dict[str, Any]]]:
    lines, start = text.split("\n"), 0
    for end in range(1, len(lines) + 1):
        if end - start > LINES_AT_MOST:
            return
        statement = "\n".join(lines[start:end])
        try:
            value = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        begun = statement.lstrip()
        if value:
            yield Place(start + 1, len(statement) - len(begun) + 1), begun, value
        start = end


def _header(value: Any, tables: dict[Steps, int]) -> Steps:
    """The path of a table, with the number of each table of an array; `tables`: how many each array has so far."""
    steps: Steps = ()
    while value:
        ((key, value),) = value.items()
        steps = (*steps, key)
        if isinstance(value, list):  # [[of.an.array]]
            tables[steps] = tables.get(steps, 0) + 1
            value = None
        if steps in tables:
            steps = (*steps, tables[steps] - 1)
    return steps


def _below(value: Any, steps: Steps) -> Iterator[Steps]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in pairs:
        yield (*steps, step)
        yield from _below(item, (*steps, step))
