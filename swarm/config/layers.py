"""Merges defaults into the streams, and the command line's `key.path=value` over both; does not check the values.

Precedence, highest first: `streams.wide.KEY=`, `KEY=` (every stream), the stream's own key, `defaults.KEY=`, `defaults`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swarm.config.tree import COMMAND_LINE, Node, Problems, Spot, Step, joined
from swarm.errors import UserErrors
from swarm.settings import RunSettings

RUN_KEYS = tuple(RunSettings.model_fields)


@dataclass(frozen=True, slots=True)
class Override:
    """One `key.path=value` of the command line."""

    steps: list[str]
    leaf: Node


GROUPED = "controller"
"""The kind that may be written with its settings in one."""


def merged(root: Node, overrides: Sequence[str], cwd: Path, problems: Problems) -> Node:
    """The tree of a run: every stream with all its settings, and no `defaults`."""
    typed = [made for number, text in enumerate(overrides, start=1) if (made := _override(text, number, cwd, problems))]
    tree = root
    for override in typed:
        if override.steps[0] == "defaults":
            tree = _placed(tree, override.steps, override.leaf, problems)
    tree = _defaults_in_streams(tree, problems)
    for override in typed:
        if override.steps[0] not in {"defaults", *RUN_KEYS}:
            tree = _in_every_stream(tree, override, problems)
    for override in typed:
        if override.steps[0] in RUN_KEYS:
            tree = _placed(tree, _stream_steps(tree, override, problems), override.leaf, problems)
    return _with_flat_kinds(tree, problems)


def _with_flat_kinds(root: Node, problems: Problems) -> Node:
    """`controller: {kind: unified, preset: glue}` of a stream, or of a model in it, as the flat keys that it is short for."""
    streams = root.items.get("streams")
    if streams is None or not isinstance(streams.value, dict):
        return root
    flat = {name: _flat(stream, GROUPED, problems) for name, stream in streams.items.items()}
    return root.with_child("streams", replace(streams, value=flat))


def _flat(node: Node, setting: str, problems: Problems) -> Node:
    """A stream, or a model in it."""
    if not isinstance(node.value, dict):
        return node
    rest = {key: _flat(below, setting, problems) for key, below in node.items.items() if key != setting}
    group = node.items.get(setting)
    if group is None:
        return replace(node, value=rest)
    if not isinstance(group.value, dict):
        return replace(node, value={setting: group, **rest})
    if "kind" not in group.items:
        problems.add(group.at, group.path, "names no kind", f"write `{setting}: {{kind: NAME, ...}}`")
        return replace(node, value=rest)
    keys = {setting if key == "kind" else f"{setting}_{key}": below for key, below in group.items.items()}
    return replace(node, value={**keys, **rest})


def _override(text: str, number: int, cwd: Path, problems: Problems) -> Override | None:
    at = Spot(COMMAND_LINE, number, cwd)
    path, equals, value = text.partition("=")
    steps = path.strip().split(".")
    if not equals or not all(steps):
        problems.add(
            at,
            "",
            f"{text[:60]!r} is no KEY.PATH=VALUE",
            "write it like streams.wide.lora_r=64 or datasets.0.path=data.jsonl",
        )
        return None
    leaf = _value(value.strip(), at, path.strip(), problems)
    return Override(steps, leaf) if leaf else None


def _value(text: str, at: Spot, path: str, problems: Problems) -> Node | None:
    from swarm.config import yamlfile

    if not text.startswith(("[", "{", '"', "'")):  # *.jsonl and a: b are text here, unlike in YAML
        try:
            return Node(yamlfile.scalar(text), at, path, at)
        except ValueError:
            problems.add(at, path, "a number with thousands of digits", "correct it")
            return None
    found = Problems()
    try:
        read = yamlfile.read(text, COMMAND_LINE, at.folder, found)
        found.raise_any()
    except UserErrors as errors:
        problems.add(
            at,
            path,
            f"{text[:40]!r} cannot be read ({errors.errors[0].what})",
            "quote the whole KEY.PATH=VALUE for the shell",
        )
        return None
    return _moved(read, at, path)


def _moved(node: Node, at: Spot, path: str) -> Node:
    """The node and all below it, as if written at `path`."""
    match node.value:
        case dict():
            return Node({key: _moved(item, at, joined(path, key)) for key, item in node.value.items()}, at, path, at)
        case list():
            return Node(
                [_moved(item, at, joined(path, number)) for number, item in enumerate(node.value)], at, path, at
            )
        case _:
            return Node(node.value, at, path, at)


def _defaults_in_streams(root: Node, problems: Problems) -> Node:
    """Merge `defaults` into every stream, key by key; a stream's list replaces the whole list."""
    defaults, streams = root.items.get("defaults"), root.items.get("streams")
    if defaults and not isinstance(defaults.value, dict | None):
        problems.add(
            defaults.at, defaults.path, "is no group of settings", "write `key: value` lines below `defaults:`"
        )
    rest = {key: node for key, node in root.items.items() if key != "defaults"}
    if streams and isinstance(streams.value, dict):
        below = defaults.items if defaults else {}
        rest["streams"] = replace(streams, value={name: _over(below, stream) for name, stream in streams.value.items()})
    return replace(root, value=rest)


def _over(below: dict[str, Node], stream: Node) -> Node:
    """The stream over the defaults; one written as `name:` alone has the defaults only."""
    own = stream.items if stream.value is not None else {}
    return replace(stream, value={**below, **own}) if isinstance(stream.value, dict | None) else stream


def _in_every_stream(root: Node, override: Override, problems: Problems) -> Node:
    streams = root.items.get("streams")
    named = streams.items if streams else {}
    for name in [name for name, stream in named.items() if isinstance(stream.value, dict)]:
        root = _placed(root, ["streams", name, *override.steps], override.leaf, problems)
    return root


def _stream_steps(root: Node, override: Override, problems: Problems) -> list[str]:
    """The steps, with the stream's name as one step (a name may contain dots).  Empty if there is no such stream."""
    steps = override.steps
    if steps[0] != "streams" or len(steps) == 1:
        return steps
    names = list(root.items["streams"].items) if "streams" in root.items else []
    for length in range(len(steps), 1, -1):
        if (name := ".".join(steps[1:length])) in names:
            return ["streams", name, *steps[length:]]
    close = difflib.get_close_matches(steps[1], names, n=1)
    fix = f"did you mean `streams.{close[0]}`?" if close else f"the config has {', '.join(names) or 'none'}"
    problems.add(override.leaf.at, override.leaf.path, f"there is no stream `{steps[1]}`", fix)
    return []


def _placed(node: Node, steps: Sequence[str], leaf: Node, problems: Problems) -> Node:
    """A copy of `node` with `leaf` at the end of `steps`; missing groups and list elements on the way are added."""
    if not steps:
        return node
    key: Step = steps[0]
    if isinstance(node.value, list):
        if not steps[0].isdecimal() or len(steps[0]) > 4 or int(steps[0]) > len(node.value):
            problems.add(
                leaf.at,
                leaf.path,
                f"`{steps[0]}` is no place in a list of {len(node.value)}",
                f"count from 0 to {len(node.value)}",
            )
            return node
        key = int(steps[0])
    elif not isinstance(node.value, dict):
        above = ".".join(leaf.path.split(".")[: -len(steps)])
        problems.add(
            leaf.at,
            leaf.path,
            f"there is nothing below `{above}` to set `{steps[0]}` in",
            f"set `{above}` itself",
        )
        return node
    below = node.child(key)
    if len(steps) == 1:
        return node.with_child(key, leaf)
    empty = Node([] if steps[1].isdecimal() else {}, leaf.at, leaf.path, leaf.at)
    return node.with_child(
        key, _placed(empty if below is None or below.value is None else below, steps[1:], leaf, problems)
    )
