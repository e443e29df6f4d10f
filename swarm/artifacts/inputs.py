"""What a training is made of, as one hash: by it a config that was run before is known, and a stream that repeats another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from swarm import plainfiles, weights
from swarm.event import SHORT
from swarm.log import Log, LogError
from swarm.rundir import RunFolder, all_runs
from swarm.settings import RunSettings, StreamSettings
from swarm.state import State, fold

IMMATERIAL = frozenset({"logging_steps", "report_to", "save_total_limit", "save_hours", "search", "replica_of"})
"""Settings without an influence on what comes out."""
WHOLE = "*"
"""Stands for all streams of a run together; it is no name of a stream."""


def inputs_of(settings: StreamSettings) -> str:
    """Of its settings and of the content of its data files; a file that cannot be read counts by its name."""
    material = {key: value for key, value in settings.model_dump(mode="json").items() if key not in IMMATERIAL}
    text = json.dumps(_with_content(material), sort_keys=True)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:SHORT]


def of_run(run: RunSettings) -> dict[str, str]:
    """What a run folder keeps: the inputs of each stream and, under WHOLE, of the run with its search and early exit."""
    streams = {name: inputs_of(one) for name, one in run.streams.items()}
    chosen = run.model_dump(mode="json", include={"halving", "pruner", "budget"})
    searches = {name: one.search and one.search.model_dump(mode="json") for name, one in run.streams.items()}
    text = json.dumps([streams, searches, chosen], sort_keys=True)
    return {**streams, WHOLE: hashlib.sha256(text.encode(errors="replace")).hexdigest()[:SHORT]}


def _with_content(value: Any) -> Any:
    match value:
        case {"start_adapter": str(path), **rest}:
            files = [_content(Path(path) / name) for name in weights.ADAPTER_FILES]
            return {"start_adapter": files, **_with_content(rest)}
        case {"path": str(path), **rest}:
            return {"path": _content(Path(path)), **{key: _with_content(below) for key, below in rest.items()}}
        case dict():
            return {key: _with_content(below) for key, below in value.items()}
        case list():
            return [_with_content(below) for below in value]
        case _:
            return value


def _content(path: Path) -> str:
    """Its hash; of a long file name, length and time, since it would take as long as its preparation."""
    try:
        found = path.stat()
        if not path.is_file() or found.st_size > weights.QUICK_BYTES:
            return f"{path} {found.st_size} {found.st_mtime_ns}"
        return _hash(path, found.st_size, found.st_mtime_ns)
    except OSError:
        return str(path)


@cache
def _hash(path: Path, size: int, mtime_ns: int) -> str:
    """Streams share their files, and a run is looked for before it is started."""
    return weights.sha256_of(path)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A stream of an earlier run that was trained from the same inputs."""

    run: str
    stream: str
    result: str


def ran_before(run: RunSettings, runs: Path) -> dict[str, Earlier]:
    """By stream, the newest run in which the same was trained to its end; under WHOLE, that in which the same run went to its end."""
    wanted = {inputs: name for name, inputs in of_run(run).items()}
    found = {}
    for folder in all_runs(runs):
        for inputs, earlier in _results(folder, wanted.keys()):
            found[wanted[inputs]] = earlier
    return found


def _results(folder: RunFolder, wanted: Any) -> Iterator[tuple[str, Earlier]]:
    try:
        known = json.loads(plainfiles.read_text(folder.inputs))
        same = {name: inputs for name, inputs in known.items() if inputs in wanted}
        state = fold(Log(folder.log).entries()) if same else State()
    except (
        LogError,
        OSError,
        ValueError,
        AttributeError,
        TypeError,
        RecursionError,
    ):  # of an older version, or somebody else's
        return
    for name, inputs in same.items():
        if name == WHOLE and state.end and not state.end.rc and (best := _best_of(state)):
            yield inputs, Earlier(folder.name, best, _result(state, best))
        if (stream := state.streams.get(name)) and stream.trained and stream.score:
            yield inputs, Earlier(folder.name, name, _result(state, name))


def _best_of(state: State) -> str:
    """What was promoted, else who has the lowest held-out loss."""
    losses = {name: one.figures["eval_loss"] for name, one in state.streams.items() if "eval_loss" in one.figures}
    return state.promoted.ref if state.promoted else min(losses, key=lambda name: losses[name], default="")


def _result(state: State, name: str) -> str:
    loss = state.streams[name].figures.get("eval_loss")
    promoted = ", promoted" if state.promoted and state.promoted.ref == name else ""
    return f"eval_loss {loss:.4g}{promoted}" if loss is not None else "trained"
