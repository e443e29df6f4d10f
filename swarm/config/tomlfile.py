"""Parses TOML into a tree with the line of each key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from swarm.config.tomllines import Place, Steps, places
from swarm.config.tree import Node, Spot, joined, only

END = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
"""Where the parser met what is no TOML."""


def read(text: str, source: str, folder: Path) -> Node:
    """Raises UserErrors if the text is not TOML."""
    at = Spot(source, 0, folder)
    try:
        return _node(tomllib.loads(text), (), at, places(text))
    except (tomllib.TOMLDecodeError, ValueError) as error:
        line, column = _end(str(error), text)
        what = f"not TOML: {END.sub('', str(error))}"
        raise only(Spot(source, line, folder, column), what, "check quotes and brackets there") from error
    except RecursionError as error:
        raise only(at, "nested too deeply", "write it flatter") from error


def _end(error: str, text: str) -> Place:
    found = END.search(error)
    if found is None:
        return Place(0, 0)
    return Place(int(found[1]), int(found[2])) if found[1] else Place(text.count("\n") + 1, 0)


def _node(value: object, steps: Steps, whole: Spot, known: Mapping[Steps, Place]) -> Node:
    place = known.get(steps)
    at = Spot(whole.source, place.line, whole.folder, place.column) if place else whole
    path = ""
    for step in steps:
        path = joined(path, step)
    match value:
        case dict():
            below = {str(key): _node(item, (*steps, str(key)), whole, known) for key, item in value.items()}
            return Node(below, at, path, at)
        case list():
            return Node([_node(item, (*steps, n), whole, known) for n, item in enumerate(value)], at, path, at)
        case bool() | int() | float() | str():
            return Node(value, at, path, at)
        case _:  # dates and times: no setting accepts one, and the error names the text
            return Node(str(value), at, path, at)
