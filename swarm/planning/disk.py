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
"""Log, metrics and what workers say."""
SMALL_FILES_BYTES = 20_000_000
"""Tokenizer, trainer state and the like beside each checkpoint."""
PREPARED_BYTES_PER_BYTE = 8
"""Of a data file: at worst a token per byte, each an int32 id and an int32 label."""


def check(run: RunSettings, needs: Mapping[str, Need], runs_dir: Path) -> None:
    """Raises UserError where the disk has less room than the run will take."""
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
    """Checkpoints that are kept and the one being written, each adapter and optimizer; then adapter and promoted copy."""
    whole = need.adapter + need.moments + SMALL_FILES_BYTES
    return (settings.save_total_limit + 1) * whole + 2 * need.adapter


def prepared_bytes(run: RunSettings) -> int:
    """Parts that ask for the same rows share them; base and length decide, so that these count too."""
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
