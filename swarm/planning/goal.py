"""Reads a goal file: Markdown whose head, between two lines `---`, names the config and the settings of the research."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.config import yamlfile
from swarm.config.dump import flow
from swarm.config.tree import Node, Problems
from swarm.errors import UserError
from swarm.plainfiles import LOG_BYTES, read_text

FENCE = "---\n"


@dataclass(frozen=True, slots=True)
class Goal:
    """A config, and words that lay the research over it."""

    config: Path
    words: list[str]


def read(path: Path) -> Goal:
    """Paths in it are relative to its folder.  Raises UserError, UserErrors."""
    try:
        text = read_text(path, LOG_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "name a goal file") from error
    head, end, _ = text.removeprefix(FENCE).partition("\n" + FENCE)
    if not text.startswith(FENCE) or not end:
        fix = "begin it with `---`, `config: FILE`, `start: STREAM`, `phases: ...` and `---`"
        raise UserError(str(path), "has no head with settings", fix)
    problems = Problems()
    tree = yamlfile.read(head, str(path), path.parent, problems)
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
