"""Space that a run will take on disk, estimated before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from swarm import units
from swarm.config.paths import files_of
from swarm.errors import UserError
from swarm.planning.estimate import Need
from swarm.settings import Dataset, RunSettings, StreamSettings

LOGS_BYTES = 50_000_000
"""Log, metrics and the output of workers."""
SMALL_FILES_BYTES = 20_000_000
"""Tokenizer, trainer state and the like beside each checkpoint."""
PREPARED_BYTES_PER_BYTE = 8
"""Bytes of prepared rows per byte of a data file, at most: one token per byte, each with an int32 id and an int32 label."""


def check(run: RunSettings, needs: Mapping[str, Need], runs_dir: Path) -> None:
    """Raises UserError if the run needs more space than the disk has."""
    folder = next(path for path in (runs_dir.absolute(), *runs_dir.absolute().parents) if path.is_dir())
    free_bytes = shutil.disk_usage(folder).free
    checkpoints = sum(checkpoints_bytes(needs[name], settings) for name, settings in run.streams.items())
    prepared = prepared_bytes(run)
    if checkpoints + prepared + LOGS_BYTES > free_bytes:
        what = f"the run will take about {units.size(checkpoints)} for checkpoints and {units.size(prepared)} for prepared rows, {units.size(free_bytes)} is free"
        raise UserError(
            f"runs_dir: {runs_dir}",
            what,
            "free some space, lower `save_total_limit`, or set `runs_dir` to another disk",
        )


def checkpoints_bytes(need: Need, settings: StreamSettings) -> int:
    """The checkpoints that are kept and the one being written, with optimizer; then the published adapter and its promoted copy.

    Where all are kept, those of `max_steps`; without it two, since rows are counted later.
    """
    kept = settings.save_total_limit or (settings.max_steps or 2 * settings.save_steps) // settings.save_steps
    whole = need.adapter + need.moments + SMALL_FILES_BYTES
    return (kept + 1) * whole + 2 * need.adapter


def prepared_bytes(run: RunSettings) -> int:
    """Parts with the same rows, base and length share one prepared folder, which is counted once."""
    asked = {
        (
            part.base_model,
            part.sequence_len,
            part.train_on_inputs,
            part.val_set_size,
            *map(str, [*part.datasets, "|", *part.test_datasets, *part.val_datasets]),
        ): [*part.datasets, *part.test_datasets, *part.val_datasets]
        for settings in run.streams.values()
        for part in settings.parts.values()
    }
    return sum(PREPARED_BYTES_PER_BYTE * _bytes_of(dataset) for datasets in asked.values() for dataset in datasets)


def _bytes_of(dataset: Dataset) -> int:
    return sum(file.stat().st_size for file in files_of(dataset.path))
