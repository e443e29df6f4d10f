"""TOML text into a tree; TOML tells no lines, so what is wrong is named by its key path."""

from __future__ import annotations

import tomllib
from pathlib import Path

from swarm.config.tree import Node, Spot, joined, only


def read(text: str, source: str, folder: Path) -> Node:
    """Raises UserErrors where the text is no TOML."""
    at = Spot(source, 0, folder)
    try:
        return _node(tomllib.loads(text), "", at)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise only(at, f"not TOML: {error}", "look at quotes and brackets there") from error
    except RecursionError as error:
        raise only(at, "nested too deeply", "write it flatter") from error


def _node(value: object, path: str, at: Spot) -> Node:
    match value:
        case dict():
            return Node(
                {str(key): _node(item, joined(path, str(key)), at) for key, item in value.items()}, at, path, at
            )
        case list():
            return Node([_node(item, joined(path, number), at) for number, item in enumerate(value)], at, path, at)
        case bool() | int() | float() | str():
            return Node(value, at, path, at)
        case _:  # dates and times: no setting takes one, and as text they are named in the error
            return Node(str(value), at, path, at)
