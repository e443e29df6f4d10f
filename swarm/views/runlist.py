"""The runs of a folder, one row each, read from their logs; a log that cannot be read is shown as damaged."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from swarm.log import Log, LogError, run_is_alive
from swarm.rundir import RunFolder, all_runs
from swarm.state import State, fold
from swarm.views.streamrows import state_of


def run_rows(runs: Path) -> list[dict[str, Any]]:
    """Name, when it began (local time), state, streams by state and the winner of every run, the oldest first."""
    return [_row(folder) for folder in all_runs(runs)]


def _row(folder: RunFolder) -> dict[str, Any]:
    try:
        state = fold(Log(folder.log).entries())
    except LogError:
        return {"run": folder.name, "began": None, "state": "damaged log", "streams": None, "promoted": None}
    states = Counter(state_of(state, stream, None)[0] for stream in state.streams.values())
    return {
        "run": folder.name,
        "began": datetime.fromtimestamp(state.started).strftime("%Y-%m-%d %H:%M") if state.run else None,  # noqa: DTZ006
        "state": _state(folder, state),
        "streams": ", ".join(f"{count} {name}" for name, count in states.items()) or None,
        "promoted": state.promoted.ref if state.promoted else None,
    }


def _state(folder: RunFolder, state: State) -> str:
    if state.end:
        return "ended" if state.end.rc == 0 else "stopped" if state.end.rc == 130 else f"ended with {state.end.rc}"
    if state.run is None:
        return "not started"
    return "running" if run_is_alive(folder.log) else "no coordinator"
