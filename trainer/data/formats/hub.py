"""Rows of the hub's data sets, through the library `datasets`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from swarm.errors import UserError
from swarm.settings import DATA_SUFFIXES, Dataset, ending_of
from trainer.data.bad import BadRow, reason_of
from trainer.data.gate import written
from trainer.data.raw import RawRow

NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""owner/name, as the hub spells it."""


def is_name(path: str) -> bool:
    return NAME.fullmatch(path) is not None and ending_of(path) not in DATA_SUFFIXES


def read(dataset: Dataset) -> Iterator[RawRow | BadRow]:
    from datasets import load_dataset

    try:
        table = load_dataset(dataset.path, split=dataset.split)
    except (
        Exception
    ) as error:  # the library raises a dozen unrelated classes for: missing, gated, offline, no such split
        what = f"cannot be had from the hub ({reason_of(error)})"
        raise UserError(
            f"datasets.path: {dataset.path}", what, "check the name, the split, the network and your login"
        ) from error
    for number, values in enumerate(table, start=1):
        yield RawRow(
            f"{dataset.path}[{dataset.split}]: row {number}", dict(values), partial(written, dict(values)), filled=True
        )
