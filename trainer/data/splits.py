"""Which rows are held out for judging: chosen by the data's own hash, so that streams on the same data are judged on the same rows.

Equal rows stay together, on one side or the other: who has learned a row is not judged by it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count


def held_out_rows(fingerprints: Sequence[bytes], val_set_size: float, seed: str) -> frozenset[int]:
    """Indices of the rows held out; the same rows, size and seed give the same ones everywhere.

    As many as asked for, or fewer where groups of equal rows do not fit; the smallest group where none does.
    """
    wanted = held_out_count(len(fingerprints), val_set_size)
    groups: dict[bytes, list[int]] = {}
    for index, fingerprint in enumerate(fingerprints):
        groups.setdefault(fingerprint, []).append(index)
    if len(groups) < 2:
        fix = "add other rows, or name test_datasets"
        raise UserError("datasets", f"all {len(fingerprints)} rows are equal: none can be held out", fix)
    drawn = random.Random(seed).sample(list(groups.values()), min(wanted, len(groups)))
    drawn.sort(key=lambda group: len(group) > wanted)  # stable: those that can never fit come last
    chosen = list(drawn[0]) if len(drawn[0]) <= wanted else min(groups.values(), key=len)
    for group in drawn[1:]:
        if len(chosen) + len(group) <= wanted:
            chosen += group
    return frozenset(chosen)
