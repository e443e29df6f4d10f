"""Weights & Biases: a group for each run, a run of it for each stream; WANDB_PROJECT and WANDB_MODE are its own variables."""

from __future__ import annotations

import os
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
    import wandb

    project = os.environ.get("WANDB_PROJECT", "toonswarm")
    name = f"{run_folder.name}-{stream}"
    run = wandb.init(
        project=project, group=run_folder.name, name=name, id=name, resume="allow", reinit="create_new",
        config=settings.model_dump(mode="json"), dir=str(run_folder),
    )  # fmt: skip
    return Run(run)
