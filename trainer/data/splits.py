"""Which rows are held out for judging: chosen by the data's own hash, so that streams on the same data are judged on the same rows."""

from __future__ import annotations

import random

from swarm.errors import UserError


def held_out_count(rows: int, val_set_size: float) -> int:
    """`val_set_size` is a share below 1 and a number of rows from 1 on."""
    count = max(1, round(rows * val_set_size)) if val_set_size < 1 else int(val_set_size)
    if val_set_size == 0:
        fix = "set val_set_size: 0.05, or name test_datasets"
        raise UserError("val_set_size", "0, and no test_datasets: nothing is held out to judge by", fix)
    if count >= rows:
        what = f"holds out {count} of {rows} rows: none are left to train on"
        raise UserError("val_set_size", what, "lower it, add rows, or name test_datasets")
    return count


def held_out_rows(rows: int, val_set_size: float, seed: str) -> frozenset[int]:
    """Indices of the rows held out; the same rows, size and seed give the same ones everywhere."""
    return frozenset(random.Random(seed).sample(range(rows), held_out_count(rows, val_set_size)))
