"""Streams that join a running run: the settings of another stream with `key=value` words laid over them.

The log holds how each differs from the stream that it is like, so that its entries and the config make all settings of the run.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarm import kinds
from swarm.config import checks, contradictions, layers, paths
from swarm.config.dump import flow
from swarm.config.searches import FIXED
from swarm.config.tree import Node, Problems, Spot, joined
from swarm.events import Add
from swarm.settings import RunSettings, StreamSettings

OTHER_RUN = "leave it out, or start another run with `swarm run`"
OUTCOME = "nothing was added"
Further = Callable[[Node, RunSettings, Problems], None]
"""Looks at the tree of a run with the new stream alone and at its settings, and adds what else is wrong."""


def settings_of(run: RunSettings, event: Add) -> RunSettings:
    """The settings of the run with the stream that joins; the same ones where its config, and so that of `like`, was removed.

    Raises UserErrors where they cannot be read any more.
    """
    if event.like not in run.streams:
        return run
    made = checked(run, event.ref, event.like, shlex.split(event.changes or ""), Path("/"), files=False)
    return run.model_copy(update={"streams": {**run.streams, event.ref: made}})


def checked(
    run: RunSettings, name: str, like: str, words: Sequence[str], cwd: Path,
    *, further: Further | None = None, files: bool = True,
) -> StreamSettings:  # fmt: skip
    """The settings of a stream `name`: those of `like`, and what `words` say instead; paths are relative to `cwd`.

    Raises UserErrors with all that is wrong; without `files` what they name need not be there.
    """
    problems, above = Problems(), f"streams.{name}"
    alone = {
        **run.dumped(),
        "research": None,
        "feedback": None,
        "streams": {name: run.streams[like].model_dump(mode="json")},
    }
    root = _tree(alone, Spot(f"like {like}", 0, cwd), "")  # fmt: skip
    root = layers.merged(root, [f"{above}.{word.removeprefix(f'{above}.')}" for word in words], cwd, problems)
    root = _without_keys_of_other_kinds(root, name, run.streams[like])
    root = paths.absolute(root, problems) if files else root
    made = checks.checked(root, problems)
    if made is not None:
        contradictions.check(root, made, problems)
        _refuse_fixed(root.items["streams"].items[name], run.streams[like], made.streams[name], problems)
        if further is not None and not problems.found:
            further(root, made, problems)
    problems.raise_any(OUTCOME)
    assert made is not None, "what pydantic refused was not told"
    return made.streams[name]


def changes(like: StreamSettings, settings: StreamSettings) -> str | None:
    """The words that make `settings` of `like`, for the log; None where they are equal."""
    before, after = like.model_dump(mode="json"), settings.model_dump(mode="json")
    short = {**after, **settings.model_dump(mode="json", exclude_defaults=True)}
    return (
        shlex.join(f"{key}={flow(short[key])}" for key in after if key != "search" and before.get(key) != after[key])
        or None
    )


def _tree(value: Any, at: Spot, path: str) -> Node:
    """Plain values as a tree."""
    match value:
        case dict():
            return Node({key: _tree(below, at, joined(path, key)) for key, below in value.items()}, at, path, at)
        case list():
            return Node([_tree(below, at, joined(path, number)) for number, below in enumerate(value)], at, path, at)
        case _:
            return Node(value, at, path, at)


def _without_keys_of_other_kinds(root: Node, name: str, like: StreamSettings) -> Node:
    """Another optimizer (method, adapter) does not have the settings of the one that it replaces."""
    streams = root.items["streams"]
    stream = streams.items[name]
    chosen = StreamSettings.chosen_by({key: stream.items[key].value for key in kinds.GROUPS if key in stream.items})
    gone = {
        *(type(like).model_fields.keys() - chosen.model_fields.keys()),
        "replica_of",
        "search",
    }  # it is compared for itself
    kept = {key: below for key, below in stream.items.items() if key not in gone or below.at.typed}
    return root.with_child("streams", streams.with_child(name, replace(stream, value=kept)))


def _refuse_fixed(stream: Node, like: StreamSettings, made: StreamSettings, problems: Problems) -> None:
    for key, why in FIXED.items():
        if getattr(like, key) != getattr(made, key):
            problems.add(*stream.setting(key), f"cannot be changed: {why}", OTHER_RUN)
    if made.search:
        problems.add(*stream.setting("search"), "cannot be changed: one stream joins at a time", OTHER_RUN)
    held, wanted = (kinds.adapter(settings.adapter).held(settings) for settings in (like, made))
    if held != wanted:
        what = f"cannot be changed: the base is held {_held(held)}, and {made.adapter} wants it {_held(wanted)}"
        problems.add(*stream.setting("adapter"), what, OTHER_RUN)


def _held(quantisation: str | None) -> str:
    return f"in {quantisation}" if quantisation else "as it is"
