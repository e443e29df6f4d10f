"""Programs that draw what a training measures, beside the run's own metrics: `report_to` names them.

Each is a module here with `opened`, which imports its library only when it is called.  A tracker gets each row as it is logged; one that
fails is left alone after one entry in the log, since training does not depend on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from swarm.messages import MetricRow
from swarm.settings import StreamSettings


class Tracker(Protocol):
    def add(self, row: MetricRow) -> None: ...

    def close(self) -> None: ...


class Trackers:
    """Those of one stream."""

    def __init__(self, run_folder: Path, stream: str, settings: StreamSettings, say: Callable[[str], None]) -> None:
        """`say` is given one line about each that fails."""
        self._say = say
        self._open: dict[str, Tracker] = {}
        for name in settings.report_to:
            try:
                module = importlib.import_module(f"{__name__}.{name}_tracker")
                self._open[name] = module.opened(run_folder, stream, settings)
            except Exception as error:  # a missing login, a service that is down
                self._failed(name, error)

    def add(self, row: MetricRow) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tracker.add(row)
            except Exception as error:
                del self._open[name]
                self._failed(name, error)

    def close(self) -> None:
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:
                self._failed(name, error)
        self._open.clear()

    def _failed(self, name: str, error: Exception) -> None:
        self._say(
            f"{name} gets no more figures of this stream ({type(error).__name__}: {error}); training goes on without it"
        )


def tags(row: MetricRow) -> dict[str, float]:
    """`train/loss`, `eval/eval_loss`: the kind of a row comes first."""
    return {f"{row.kind}/{name}": value for name, value in row.figures.items()}
