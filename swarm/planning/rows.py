"""Rows that a part's data files hold: lines of .jsonl files are counted here, other formats by a process of the trainer's reader."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from swarm import kinds
from swarm.config.paths import files_of
from swarm.config.tree import Node, Problems, follow
from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count
from swarm.policy.mixing import mixed, shares
from swarm.settings import DATA_SUFFIXES, Dataset, Part, RunSettings, StreamSettings, ending_of
from swarm.spawning import module_command

BLANK = b" \t\r\n\xef\xbb\xbf"
"""A line of only these bytes is no row; the last three are the UTF-8 byte order mark."""
LINES = (".jsonl", ".ndjson")

Answer = int | tuple[str, str] | None
"""Rows of a file; what is wrong with it and the fix; or None: nobody here can tell."""


def trained_on(part: Part) -> int | None:
    """Rows to train on; None where there are none (`config.paths` says so), or where they cannot be counted (a dataset of the hub).

    Equal rows and bad ones are known once they are prepared.  Raises UserError where `val_set_size` or a weight leaves none.
    """
    counts = _counted(part)
    if counts is None:
        return None
    every = sum(counts)
    held_out = 0 if part.test_datasets else held_out_count(every, part.val_set_size)
    left = min(every - held_out, part.ablate_examples or every)
    parts = shares([dataset.weight for dataset in part.datasets])
    if parts is None:
        return left
    return sum(mixed([round(count * left / every) for count in counts], parts, part.mix_strategy))


def most_steps(settings: StreamSettings, rows: int) -> int | None:
    """Of so many rows, without `max_steps` and before any stop; None where tokens decide, which are not counted before they are prepared."""
    if settings.packing != "none" or settings.batch_size_tokens:
        return None
    examples = rows * kinds.method(settings.method).examples
    per_epoch = math.ceil(math.ceil(examples / settings.micro_batch_size) / settings.gradient_accumulation_steps)
    return math.ceil(settings.num_epochs * per_epoch)


def look(root: Node, run: RunSettings, problems: Problems) -> None:
    """Adds what preparing would refuse: files that cannot be read as their format, a held-out share that leaves no rows, stops that so few rows cannot reach."""
    for name, settings in run.streams.items():
        for key, part in settings.parts.items():
            group, _ = follow(root.items["streams"].items[name], settings.part_steps(key))
            _look_at_files(group, part, problems)
            try:
                _look_at_stops(group, settings, trained_on(part), problems)
            except UserError as error:
                at, path = group.setting(error.where)
                if not problems.has(at, path):
                    problems.add(at, path, error.what, error.fix)


def _look_at_stops(group: Node, settings: StreamSettings, rows: int | None, problems: Problems) -> None:
    """Where epochs decide; with `max_steps` it was looked at before."""
    if settings.max_steps is not None or rows is None or len(settings.parts) > 1 or settings.has_documents:
        return
    steps = most_steps(settings, rows)
    for stop in kinds.stops_armed(settings) if steps else ():
        if why := stop.unreachable(settings, steps):
            problems.add(*group.setting(why.key), why.what, why.fix)


def _look_at_files(group: Node, part: Part, problems: Problems) -> None:
    for key in ("datasets", "test_datasets", "val_datasets"):
        for number, dataset in enumerate(getattr(part, key)):
            node, _ = follow(group, [key, number])
            at, path = node.setting("path")
            for file, (what, fix) in _unreadable(files_of(dataset.path)):
                if not problems.has(at, path):
                    problems.add(at, path, f"{file}: {what}", fix)


def _unreadable(files: Sequence[Path]) -> Iterator[tuple[Path, tuple[str, str]]]:
    for file, answer in zip(files, _rows_in(files), strict=True):
        if isinstance(answer, tuple):
            yield file, answer


def _counted(part: Part) -> list[int] | None:
    """Rows of each dataset."""
    counts = [_rows_of(dataset) for dataset in part.datasets]
    known = [count for count in counts if count is not None]
    return known if len(known) == len(counts) and any(known) else None


def _rows_of(dataset: Dataset) -> int | None:
    counts = _rows_in(files_of(dataset.path))
    if not counts or any(not isinstance(count, int) for count in counts):
        return None
    count = sum(count for count in counts if isinstance(count, int))
    return count if dataset.limit is None else min(count, dataset.limit)


def _rows_in(files: Sequence[Path]) -> tuple[Answer, ...]:
    """One process counts the rows of all files; nothing is read twice while it does not change."""
    seen = [(file, file.stat()) for file in files]
    return _row_counts(tuple((file, about.st_size, about.st_mtime_ns) for file, about in seen))


@cache
def _row_counts(seen: tuple[tuple[Path, int, int], ...]) -> tuple[Answer, ...]:
    read = _read([file for file, size, _ in seen if ending_of(file) in {*DATA_SUFFIXES} - {*LINES} and size])
    return tuple(_lines(file) if ending_of(file) in LINES else read.get(str(file)) for file, _, _ in seen)


def _lines(file: Path) -> int | None:
    try:
        with file.open("rb") as opened:
            return sum(1 for line in opened if line.strip(BLANK))
    except OSError:  # reported where its rows are read
        return None


def _read(files: Sequence[Path]) -> dict[str, Answer]:
    if not files:
        return {}
    command = module_command("trainer.data.counting", *map(str, files))
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    try:
        answers = json.loads(done.stdout)
    except ValueError:  # without what training needs: preparing will say it
        return {}
    return {
        name: answer if isinstance(answer, int) else (answer["problem"], answer["fix"])
        for name, answer in answers.items()
    }
