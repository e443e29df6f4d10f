"""trackio: a project for each run, a run of it for each stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swarm.messages import MetricRow
from swarm.settings import StreamSettings
from trainer.trackers import tags


class Run:
    def __init__(self, run: Any) -> None:
        self._run = run

    def add(self, row: MetricRow) -> None:
        self._run.log(tags(row), step=row.step)

    def close(self) -> None:
        self._run.finish()


def opened(run_folder: Path, stream: str, settings: StreamSettings) -> Run:
    import trackio

    config = settings.model_dump(mode="json")
    return Run(trackio.init(project=run_folder.name, name=stream, config=config, resume="allow"))
