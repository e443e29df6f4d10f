"""How many rows are held out for judging, where no held-out files are named; pure."""

from __future__ import annotations

from swarm.errors import UserError


def held_out_count(rows: int, val_set_size: float) -> int:
    """`val_set_size` below 1 is a share of the rows; from 1 on it is their number.

    Raises UserError where nothing would be held out, or nothing would be left to train on.
    """
    if val_set_size == 0:
        fix = "set val_set_size: 0.05, or name test_datasets"
        raise UserError("val_set_size", "0, and no test_datasets: no rows are held out for validation", fix)
    count = max(1, round(rows * val_set_size)) if val_set_size < 1 else int(val_set_size)
    if count >= rows:
        what = f"holds out {count} of {rows} rows: none are left to train on"
        raise UserError("val_set_size", what, "lower it, add rows, or name test_datasets")
    return count
