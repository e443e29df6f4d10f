"""The runs of a folder, one row each or one for each of their streams, read from their logs and configs.

A log that cannot be read is shown as damaged; a run whose config cannot be read has no base and no settings here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from swarm import config, figures
from swarm.errors import UserErrors
from swarm.log import Log, LogError, run_is_alive
from swarm.rundir import RunFolder, all_runs
from swarm.settings import RunSettings
from swarm.state import State, Stream, fold
from swarm.views.streamrows import state_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs: patterns as a shell has them; None takes all."""

    name: str | None = None
    base: str | None = None
    state: str | None = None
    promoted: bool = False

    def takes(self, row: dict[str, Any]) -> bool:
        pairs = ((self.name, row["run"]), (self.base, row["base"]), (self.state, row["state"]))
        fits = all(pattern is None or fnmatchcase(str(value or ""), pattern) for pattern, value in pairs)
        return fits and (row["version"] is not None or not self.promoted)


ALL = Wanted()


def run_rows(runs: Path, wanted: Wanted = ALL) -> list[dict[str, Any]]:
    """Name, when it began (local time), state, streams by state, base, best figure, winner and its version; the oldest first."""
    return [row for folder in all_runs(runs) if wanted.takes(row := _row(folder))]


def stream_rows(folders: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """A row for each stream of these runs: its figures, and the settings in which any two of them differ.  Raises LogError."""
    found = [(folder, fold(Log(folder.log).entries())) for folder in folders]
    rows = [(folder, state, _settings(folder, state), name) for folder, state in found for name in state.streams]
    flat = [
        settings.streams[name].model_dump(mode="json") if settings and name in settings.streams else {}
        for _, _, settings, name in rows
    ]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    differ = [key for key in keys if len({repr(one.get(key)) for one in flat}) > 1]
    measured = [_measured(state.streams[name]) for _, state, _, name in rows]
    names = [name for name in dict.fromkeys(name for one in measured for name in one) if figures.is_compared(name)]
    return [
        {
            "run": folder.name, "stream": name, "state": state_of(state, state.streams[name], None)[0],
            **{key: one.get(key) for key in names}, **{key: own.get(key) for key in differ},
        }
        for (folder, state, _, name), own, one in zip(rows, flat, measured, strict=True)
    ]  # fmt: skip


def _row(folder: RunFolder) -> dict[str, Any]:
    try:
        state = fold(Log(folder.log).entries())
    except LogError:
        return dict.fromkeys(COLUMNS) | {"run": folder.name, "state": "damaged log"}
    states = Counter(state_of(state, stream, None)[0] for stream in state.streams.values())
    settings = _settings(folder, state)
    return {
        "run": folder.name,
        "began": datetime.fromtimestamp(state.started).strftime("%Y-%m-%d %H:%M") if state.run else None,  # noqa: DTZ006
        "state": _state(folder, state),
        "streams": ", ".join(f"{count} {name}" for name, count in states.items()) or None,
        "base": ", ".join(dict.fromkeys(Path(one.base_model).name for one in settings.streams.values()))
        if settings
        else None,
        "best": _best(state, settings) if settings else None,
        "promoted": state.promoted.ref if state.promoted else None,
        "version": state.promoted.version if state.promoted else None,
    }


COLUMNS = ("run", "began", "state", "streams", "base", "best", "promoted", "version")


def _settings(folder: RunFolder, state: State) -> RunSettings | None:
    try:
        return config.of_run(folder, state.added)
    except (UserErrors, OSError):
        return None


def _measured(stream: Stream) -> dict[str, float]:
    """What validator and evaluator stated."""
    return {name: value for event in (stream.verdict, stream.score) if event for name, value in event.figures.items()}


def _best(state: State, settings: RunSettings) -> str | None:
    """The best of all streams, by the figure that the run promotes by."""
    metric, best = settings.promotion.metric, min if settings.promotion.direction == "min" else max
    values = [one[metric] for stream in state.streams.values() if metric in (one := _measured(stream))]
    return f"{metric} {figures.of(metric).text(best(values))}" if values else None


def _state(folder: RunFolder, state: State) -> str:
    if state.end:
        return "ended" if state.end.rc == 0 else "stopped" if state.end.rc == 130 else f"ended with {state.end.rc}"
    if state.run is None:
        return "not started"
    return "running" if run_is_alive(folder.log) else "no coordinator"
