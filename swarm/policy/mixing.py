"""How many rows of each dataset a mixture by weights has; pure."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from swarm.errors import UserError

Strategy = Literal["repeat", "sample"]
MOST_TIMES = 1000
"""A mixture has at most so many times the rows of its datasets; more is no mixture but a weight with a zero too many."""


def shares(weights: Sequence[float | None]) -> list[Fraction] | None:
    """Each dataset's part of the whole; None where no weight is set.  An unset one beside others is 1."""
    if not any(weights):
        return None
    exact = [Fraction(str(weight or 1)) for weight in weights]
    return [weight / sum(exact) for weight in exact]


def mixed(counts: Sequence[int], parts: Sequence[Fraction], strategy: Strategy, most: int | None = None) -> list[int]:
    """Rows of each dataset, within one row of its part; no more than `most` together.

    `repeat`: as many as it takes for every dataset to be used whole.  `sample`: as many as there are without using a row twice.
    Raises UserError where a dataset has no rows, or its part is so small that it gets none.
    """
    if empty := [number for number, count in enumerate(counts) if not count]:
        what = "no row of it is left to mix: all are bad, held out, or equal rows of earlier datasets"
        raise UserError(f"datasets.{empty[0]}", what, "take it out, or set `dedupe: false`")
    needed = [count / part for count, part in zip(counts, parts, strict=True)]
    whole = int(max(needed)) if strategy == "repeat" else int(min(needed))
    whole = min(whole, most or whole)
    if whole > MOST_TIMES * sum(counts):
        what = f"makes more than {MOST_TIMES} times the {sum(counts)} rows that there are, for all to be used"
        raise UserError(f"datasets.{parts.index(max(parts))}.weight", what, "lower it, or set `mix_strategy: sample`")
    made = _rounded([part * whole for part in parts])
    if strategy == "sample":
        made = [min(rows, count) for rows, count in zip(made, counts, strict=True)]
    if none := [number for number, rows in enumerate(made) if not rows]:
        raise UserError(
            f"datasets.{none[0]}.weight", f"gives it no row of {sum(made)}", "raise it, or set `mix_strategy: repeat`"
        )
    return made


def _rounded(exact: Sequence[Fraction]) -> list[int]:
    """Whole numbers with the same sum; the largest remainders are rounded up (Hare's quota)."""
    made = [int(value) for value in exact]
    left = int(sum(exact)) - sum(made)
    by_remainder = sorted(range(len(exact)), key=lambda number: made[number] - exact[number])
    for number in by_remainder[:left]:
        made[number] += 1
    return made


def in_words(rows: Sequence[int]) -> str:
    """The achieved ratio: `180 : 60 : 60 (60.0 % : 20.0 % : 20.0 %)`."""
    whole = sum(rows)
    return f"{' : '.join(map(str, rows))} ({' : '.join(f'{count / whole:.1%}' for count in rows)})".replace("%", " %")
