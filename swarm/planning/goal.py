"""Reads a goal file: Markdown whose head, between two lines `---`, names the config and the settings of the research."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.config import text_of, yamlfile
from swarm.config.dump import flow
from swarm.config.tree import Node, Problems, Spot
from swarm.errors import UserError

HEAD = re.compile(r"---[ \t]*\r?\n(?P<head>.*?\n)---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
FIRST_LINE = "\n"
"""In place of the fence, so that lines are those of the file."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A config, and words that lay the research over it."""

    config: Path
    words: list[str]


def read(path: Path) -> Goal:
    """Paths in it are relative to its folder.  Raises UserError, UserErrors."""
    text = text_of(path, Spot(str(path), 0, path.parent), fix="name a goal file")
    found = HEAD.match(text)
    if found is None:
        fix = "begin it with `---`, `config: FILE`, `start: STREAM`, `phases: ...` and `---`"
        raise UserError(str(path), "has no head with settings", fix)
    problems = Problems()
    tree = yamlfile.read(FIRST_LINE + found["head"], str(path), path.parent, problems)
    problems.raise_any()
    settings = _with_paths(_plain(tree), path.parent.resolve())
    if not isinstance(settings, dict) or not isinstance(config := settings.pop("config", None), str):
        raise UserError(str(path), "names no config", "write `config: FILE` into its head")
    budget = settings.pop("budget", None)
    words = [f"research={flow(settings)}", *([f"budget={flow(budget)}"] if budget else [])]
    return Goal(path.parent / config, words)


def _plain(node: Any) -> Any:
    value = node.value if isinstance(node, Node) else node
    match value:
        case dict():
            return {key: _plain(below) for key, below in value.items()}
        case list():
            return [_plain(below) for below in value]
        case _:
            return value


def _with_paths(value: Any, folder: Path) -> Any:
    """Data sets name files, which stand absolute in a run."""
    match value:
        case dict():
            return {
                key: str(folder / below) if key == "path" and isinstance(below, str) else _with_paths(below, folder)
                for key, below in value.items()
            }
        case list():
            return [_with_paths(below, folder) for below in value]
        case _:
            return value
