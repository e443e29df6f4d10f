"""TensorBoard's event files, in `tensorboard/STREAM` of the run folder: `tensorboard --logdir runs/RUN/tensorboard`."""

from __future__ import annotations

from pathlib import Path

from swarm.messages import MetricRow
from swarm.settings import StreamSettings
from trainer.trackers import tags


class Events:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def add(self, row: MetricRow) -> None:
        for tag, value in tags(row).items():
            self._writer.add_scalar(tag, value, row.step, row.time)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def opened(run_folder: Path, stream: str, settings: StreamSettings) -> Events:
    return Events(run_folder / "tensorboard" / stream)
