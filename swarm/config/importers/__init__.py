"""Reads the config of another tool and writes ours: each of its keys is a setting, a comment with the reason, or a problem.

A tool is one file here: a table of the keys whose values mean something else here, and its own defaults.  Every other key goes by its
name: ours, or what `swarm.config.foreign` says of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from swarm.config import read_tree
from swarm.config.importers import airoad, axolotl, llamafactory, qlora_pipe_lite, trl
from swarm.config.importers.draft import Draft
from swarm.config.importers.rules import COMMON, CannotTake, Foreign, Tool, by_name
from swarm.config.tree import Mistake, Node, Problems, follow
from swarm.errors import UserErrors

__all__ = ["TOOLS", "imported"]

TOOLS = (axolotl.TOOL, llamafactory.TOOL, trl.TOOL, airoad.TOOL, qlora_pipe_lite.TOOL)
NOTHING = "nothing was written"
Load = Callable[[str], object]
"""Reads a config's text as any config is read; raises UserErrors."""


def imported(path: Path, cwd: Path, target: Path, load: Load) -> str:
    """The text of the config that does the same, to be written at `target`.

    Raises UserErrors with the lines of the other tool's file, if a key or a value of it cannot be taken.
    """
    root = read_tree(path, cwd)
    tool = _tool_of(root)
    draft, problems = Draft(tool.name, path), Problems()
    foreign = Foreign(tool, {key: node.plain() for key, node in root.items.items()}, cwd, (cwd / target).parent)
    for key, node in root.items.items():
        try:
            draft.take(node, _outcome(tool, key, node.plain(), foreign))
        except CannotTake as error:
            at, _ = follow(root, [int(step) if step.isdecimal() else step for step in (error.key or key).split(".")])
            problems.add(at.key_at or at.at, error.key or node.path, error.what, error.fix)
    problems.raise_any(NOTHING)
    try:
        draft.fill(tool.name, tool.defaults(foreign))
    except (TypeError, ValueError) as error:
        raise UserErrors([Mistake(root.at, "", f"holds a number that {tool.name} does not take ({error})", "correct it")], NOTHING) from error  # fmt: skip
    text = draft.text()
    _refuse_what_is_refused(root, draft, text, load)
    return text


def _outcome(tool: Tool, key: str, value: object, foreign: Foreign) -> dict[str, object] | str:
    rule = tool.rules.get(key) or COMMON.get(key)
    try:
        return by_name(key, value, tool.name) if rule is None else rule(value, foreign)
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise CannotTake(f"has a form that {tool.name} does not take ({error})", "correct it") from error


def _tool_of(root: Node) -> Tool:
    """The tool with the most of its own keys in the file."""
    if "streams" in root.items:
        fix = "copy it; `swarm check` says what is wrong in it"
        raise UserErrors([Mistake(root.at, "streams", "is a config of this program already", fix)], NOTHING)
    marks = {tool: len(tool.marks & root.items.keys()) for tool in TOOLS}
    best = max(TOOLS, key=lambda tool: marks[tool])
    if not marks[best]:
        names = ", ".join(tool.name for tool in TOOLS)
        raise UserErrors([Mistake(root.at, "", f"has no key by which a tool is known ({names})", "write ours: `swarm init`")], NOTHING)  # fmt: skip
    return best


def _refuse_what_is_refused(root: Node, draft: Draft, text: str, load: Load) -> None:
    """Raises UserErrors at the lines of the other file from which refused settings were made."""
    try:
        load(text)
    except UserErrors as errors:
        problems = Problems()
        for error in errors.errors:
            if not isinstance(error, Mistake):
                raise
            node = draft.made_of(error.at.line)
            at, path = (node.key_at or node.at, node.path) if node else (root.at, "")
            source = "here" if node else f"by a default of {draft.tool}, here"
            problems.add(at, path, f"{source} {error.key}: {error.what}", error.fix)
        problems.raise_any(NOTHING)
