"""Which rows are held out for judging: chosen by the data's own hash, so that streams on the same data are judged on the same rows.

Equal rows stay together, on one side or the other, and so do rows of one group (`group_by`): who has learned a row is not judged by it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count


def held_out_rows(
    fingerprints: Sequence[bytes], val_set_size: float, seed: str, groups: Sequence[bytes] = ()
) -> frozenset[int]:
    """Indices of the rows held out; the same rows, size and seed give the same ones everywhere.

    `groups`: of each row the key of its group; empty where it has none.  As many rows as asked for, or fewer where what belongs
    together does not fit; the smallest part where none does.
    """
    wanted = held_out_count(len(fingerprints), val_set_size)
    parts = _parts(fingerprints, groups)
    if len(parts) < 2:
        alike = "belong to one group" if any(groups) else "are equal"
        fix = "add other rows, or name test_datasets"
        raise UserError("datasets", f"all {len(fingerprints)} rows {alike}: none can be held out", fix)
    drawn = random.Random(seed).sample(parts, min(wanted, len(parts)))
    drawn.sort(key=lambda part: len(part) > wanted)  # stable: those that can never fit come last
    chosen = list(drawn[0]) if len(drawn[0]) <= wanted else min(parts, key=len)
    for part in drawn[1:]:
        if len(chosen) + len(part) <= wanted:
            chosen += part
    return frozenset(chosen)


def _parts(fingerprints: Sequence[bytes], groups: Sequence[bytes]) -> list[list[int]]:
    """Rows that stay together, in the order of their first ones: equal rows and rows of one group, over as many steps as it takes."""
    above = list(range(len(fingerprints)))

    def first(index: int) -> int:
        while above[index] != index:
            above[index] = above[above[index]]
            index = above[index]
        return index

    seen: dict[bytes, int] = {}
    for index, keys in enumerate(zip(fingerprints, groups or [b""] * len(above), strict=True)):
        for key in filter(None, keys):
            one, other = first(seen.setdefault(key, index)), first(index)
            above[max(one, other)] = min(one, other)
    parts: dict[int, list[int]] = {}
    for index in range(len(above)):
        parts.setdefault(first(index), []).append(index)
    return list(parts.values())
