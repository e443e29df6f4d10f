"""Rows that a part's data files hold, counted without reading them: lines of .jsonl files."""

from __future__ import annotations

from pathlib import Path

from swarm.config.paths import files_of
from swarm.config.tree import Node, Problems, follow
from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count
from swarm.settings import Dataset, Part, RunSettings

BLANK = b" \t\r\n\xef\xbb\xbf"
"""A line of these alone is no row; the last three are UTF-8's mark at the beginning of a file."""


def trained_on(part: Part) -> int | None:
    """Rows to train on; None where there are none (`config.paths` says so), or another format would have to be read."""
    every = _counted(part)
    if every is None or part.test_datasets:
        return every
    return every - held_out_count(every, part.val_set_size)


def look(root: Node, run: RunSettings, problems: Problems) -> None:
    """Adds what preparing would refuse for the number of rows alone."""
    for name, settings in run.streams.items():
        for key, part in settings.parts.items():
            group, _ = follow(root.items["streams"].items[name], settings.part_steps(key))
            try:
                trained_on(part)
            except UserError as error:
                at, path = group.setting(error.where)
                if not problems.told(at, path):
                    problems.add(at, path, error.what, error.fix)


def _counted(part: Part) -> int | None:
    counts = [_rows_of(dataset) for dataset in part.datasets]
    return None if None in counts else sum(count for count in counts if count is not None) or None


def _rows_of(dataset: Dataset) -> int | None:
    files = files_of(dataset.path)
    if not files or any(file.suffix != ".jsonl" for file in files):
        return None
    count = sum(_lines(file) for file in files)
    return count if dataset.limit is None else min(count, dataset.limit)


def _lines(file: Path) -> int:
    with file.open("rb") as opened:
        return sum(1 for line in opened if line.strip(BLANK))
