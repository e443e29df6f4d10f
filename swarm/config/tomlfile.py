"""Parses TOML into a tree.  The TOML parser reports no lines, so errors name the key path."""

from __future__ import annotations

import tomllib
from pathlib import Path

from swarm.config.tree import Node, Spot, joined, only


def read(text: str, source: str, folder: Path) -> Node:
    """Raises UserErrors if the text is not TOML."""
    at = Spot(source, 0, folder)
    try:
        return _node(tomllib.loads(text), "", at)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise only(at, f"not TOML: {error}", "check quotes and brackets there") from error
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
        case _:  # dates and times: no setting accepts one, and the error names the text
            return Node(str(value), at, path, at)
