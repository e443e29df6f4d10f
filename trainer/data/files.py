"""Raw rows of a config's data sets, in the order of their files; what a row means is `rows`' work."""

from __future__ import annotations

import glob
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from swarm.errors import UserError
from swarm.settings import Dataset, ending_of, wrong_ending
from trainer.data.bad import BadRow
from trainer.data.formats import READERS, hub
from trainer.data.formats.text import SAVE_AS_UTF8
from trainer.data.raw import RawRow


def files_of(dataset: Dataset) -> list[Path]:
    """The files that a path or pattern names, sorted; empty for a hub dataset."""
    named = Path(dataset.path)
    if named.is_file():  # whatever brackets are in its name
        return [_refused_by_its_ending(named)]
    found = sorted(path for name in glob.glob(dataset.path, recursive=True) if (path := Path(name)).is_file())  # noqa: PTH207 absolute patterns
    if named.is_dir():
        raise UserError("datasets.path", f"{named} is a folder", f"write {named}/*.jsonl, or another pattern of files")
    if not found and not hub.is_name(dataset.path):
        raise UserError(
            "datasets.path", f"no file matches {dataset.path} in {Path.cwd()}", "correct the path or the pattern"
        )
    return [_refused_by_its_ending(path) for path in found]


def _refused_by_its_ending(path: Path) -> Path:
    """The path itself, where its ending is one of those that are read."""
    if wrong := wrong_ending(path):
        what, fix = wrong
        raise UserError("datasets.path", what, f"{fix}, or name another file")
    return path


def raw_rows(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    """All rows of one dataset, in the order of its files."""
    if dataset.shuffle and dataset.limit is not None:
        yield from _random_rows(dataset, dataset.limit)
    else:
        yield from islice(_all_rows(dataset), dataset.limit)


def _random_rows(dataset: Dataset, limit: int) -> Iterator[RawRow | BadRow]:
    """They are counted first, so that none is kept in memory."""
    count = sum(1 for _ in _all_rows(dataset))
    chosen = set(random.Random(dataset.shuffle_seed).sample(range(count), min(limit, count)))
    yield from (row for number, row in enumerate(_all_rows(dataset)) if number in chosen)


def _all_rows(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    files = files_of(dataset)
    if not files:
        yield from hub.read(dataset)
    for path in files:
        yield from rows_of_file(path)


def rows_of_file(path: Path) -> Iterator[RawRow | BadRow]:
    try:
        yield from READERS[ending_of(path)](path)
    except UnicodeDecodeError as error:  # UTF-16 that ends in the middle of a character
        raise UserError(str(path), f"not a text file ({error.reason})", SAVE_AS_UTF8) from error
