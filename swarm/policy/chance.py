"""Can two arms be told apart?  A paired bootstrap over rows, the spread over seeds, and Holm's correction for several comparisons; pure.

The bootstrap (Efron 1979) asks what other rows would have shown: both arms answered the same rows, so differences are drawn row by row.
It knows nothing of what another seed would have shown; that spread is measured from replicas, given by the user, or not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Protocol

DRAWS = 10_000
MOST_BLOCKS = 1_000
"""More rows are drawn in so many blocks of rows, so that a comparison takes a tenth of a second."""
FEW_ROWS = 30
"""The bootstrap of fewer rows finds too much."""
LEAST_P = 1e-9
"""Below it a tail is rounding."""
POWER = 0.8
"""The smallest detectable effect is found so often."""


class Draws(Protocol):
    """A seeded source of randomness, as random.Random."""

    def getrandbits(self, k: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Spread:
    """The standard deviation of a figure over seeds."""

    value: float
    freedom: int | None
    """Degrees of freedom of a measured one; None: the user gave it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one arm is better than another, and what chance would do."""

    value: float
    """Positive: the first is better."""
    low: float
    high: float
    """The interval at the level of the test."""
    p: float
    """How likely chance alone makes a difference of this size, two-sided."""
    detectable: float
    """The smallest true difference that such a test finds in four of five cases."""
    rows: int

    @property
    def are_few(self) -> bool:
        """Whether the rows themselves are what the test lacks."""
        return self.rows < FEW_ROWS


def difference(
    rows: Sequence[tuple[float, float]],
    level: float,
    random: Draws,
    seeds: tuple[int, int] = (1, 1),
    spread: Spread | None = None,
) -> Difference:
    """Of two arms on the same rows: (first - second, weight) of each, positive where the first is better.

    `seeds`: how many replicas each arm is the mean of; 0 for the bare base, which has no seed.
    """
    weighted = [(gap * weight, weight) for gap, weight in rows]
    value, drawn = _mean(weighted), _drawn(_blocks(weighted), random)
    of_rows = stdev(drawn)
    if spread is None:
        return _by_rows(value, drawn, of_rows, level, [gap for gap, _ in rows])
    error = math.hypot(of_rows, spread.value * math.sqrt(sum(1 / count for count in seeds if count)))
    critical, p = _quantile(1 - level / 2, spread.freedom), _two_sided(value, error, spread.freedom)
    reach = critical * error
    detectable = (critical + NormalDist().inv_cdf(POWER)) * error
    return Difference(value, value - reach, value + reach, p, detectable, len(rows))


def _by_rows(value: float, drawn: Sequence[float], error: float, level: float, gaps: Sequence[float]) -> Difference:
    """From the bootstrap alone, and of few rows no more than another test of them tells."""
    low, high = (drawn[min(DRAWS - 1, int(share * DRAWS))] for share in (level / 2, 1 - level / 2))
    beyond = min(sum(one <= 0 for one in drawn), sum(one >= 0 for one in drawn))
    p = min(1.0, max(2 * (beyond + 1) / (DRAWS + 1), _of_few(value, error, gaps)))
    if (
        not beyond and len(gaps) >= FEW_ROWS
    ):  # the draws say less than one in so many: of many comparisons each must be rarer
        p = min(p, max(LEAST_P, _two_sided(value, error, len(gaps) - 1)))
    freedom = len(gaps) - 1 if 1 < len(gaps) < FEW_ROWS else None
    own = error * math.sqrt((freedom + 1) / freedom) if freedom else error  # of few rows, without the bias of the draws
    critical = _quantile(1 - level / 2, freedom)
    if freedom:
        low, high = min(low, value - critical * own), max(high, value + critical * own)
    return Difference(value, low, high, p, (critical + NormalDist().inv_cdf(POWER)) * own, len(gaps))


def _of_few(value: float, error: float, gaps: Sequence[float]) -> float:
    """The least p that few rows may have: Student's t where all differ, a sign test (2 of 2**rows outcomes) where scores are alike."""
    count = len(gaps)
    if count >= FEW_ROWS:
        return 0.0
    if count < 2 or len(set(gaps)) < count:
        return 2.0 ** (1 - count)
    return _two_sided(value, error * math.sqrt(count / (count - 1)), count - 1)


def _blocks(rows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every `MOST_BLOCKS`-th row together."""
    if len(rows) <= MOST_BLOCKS:
        return list(rows)
    return [
        (sum(gap for gap, _ in rows[at::MOST_BLOCKS]), sum(weight for _, weight in rows[at::MOST_BLOCKS]))
        for at in range(MOST_BLOCKS)
    ]


def _drawn(rows: Sequence[tuple[float, float]], random: Draws) -> list[float]:
    """Means of as many rows, drawn with replacement; ascending."""
    import numpy as np  # takes 0.1 s and 20 MB, which most commands can do without

    generator = np.random.default_rng(random.getrandbits(64))
    gaps, weights = np.array(rows).T
    picked = (generator.integers(len(rows), size=(DRAWS // 10, len(rows))) for _ in range(10))  # bounds their memory
    means = [gaps[part].sum(axis=1) / weights[part].sum(axis=1) for part in picked]
    return list(map(float, np.sort(np.concatenate(means))))


def _mean(rows: Sequence[tuple[float, float]]) -> float:
    gaps, weights = zip(*rows, strict=True)
    return float(sum(gaps) / sum(weights))


def unpaired(first: Sequence[float], second: Sequence[float]) -> list[tuple[float, float]]:
    """Rows for `difference` of two arms that had other requests each: their mean is the difference of the means.

    Values are taken from the mean of all, so that how many rows of each arm are drawn adds next to nothing to the spread.
    """
    middle, count = fmean([*first, *second]), len(first) + len(second)
    own = [((value - middle) * count / len(first), 1.0) for value in first]
    return own + [((middle - value) * count / len(second), 1.0) for value in second]


def spread_of(arms: Sequence[Sequence[float]]) -> Spread | None:
    """Pooled over the arms that have several seeds; None where no arm has."""
    several = [arm for arm in arms if len(arm) > 1]
    freedom = sum(len(arm) - 1 for arm in several)
    if not freedom:
        return None
    squares = sum((value - fmean(arm)) ** 2 for arm in several for value in arm)
    return Spread(math.sqrt(squares / freedom), freedom)


def told_apart(p_values: Sequence[float], level: float) -> list[bool]:
    """Which comparisons are no chance, at this level over all of them together (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    found = [False] * len(p_values)
    for rank, at in enumerate(order):
        if p_values[at] > level / (len(p_values) - rank):
            break
        found[at] = True
    return found


def multiple(level: float, comparisons: int) -> float:
    """A difference of two single runs below so many spreads over seeds counts as chance, whatever the rows say."""
    return NormalDist().inv_cdf(1 - level / 2 / max(1, comparisons)) * math.sqrt(2)


# ---- Student's t -----------------------------------------------------------------------------------------------------


def _two_sided(value: float, error: float, freedom: int | None) -> float:
    if error == 0:
        return 1.0 if value == 0 else 0.0
    return 2 * (1 - _cumulative(abs(value) / error, freedom))


def _quantile(share: float, freedom: int | None) -> float:
    if freedom is None:
        return NormalDist().inv_cdf(share)
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _cumulative(middle, freedom) < share else (low, middle)
    return high


def _cumulative(t: float, freedom: int | None) -> float:
    """P(T <= t) for t >= 0, by the finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    if freedom is None:
        return NormalDist().cdf(t)
    angle = math.atan(t / math.sqrt(freedom))
    cosine, term, total = math.cos(angle), 1.0, 0.0
    if freedom % 2:
        term = cosine
        for number in range(1, freedom - 1, 2):
            total += term
            term *= cosine**2 * (number + 1) / (number + 2)
        between = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        for number in range(0, freedom, 2):
            total += term
            term *= cosine**2 * (number + 1) / (number + 2)
        between = math.sin(angle) * total
    return 0.5 + between / 2
