"""What chance would do: quantiles against tables, the bootstrap against what is known of means, Holm by hand."""

from __future__ import annotations

import random
from statistics import fmean, stdev

import pytest

from swarm.policy import chance
from swarm.policy.chance import Spread, difference, spread_of, told_apart

LEVEL = 0.01


def rows(gaps: list[float]) -> list[tuple[float, float]]:
    return [(gap, 1.0) for gap in gaps]


def draws() -> random.Random:
    return random.Random(0)


def test_quantiles_of_students_t_are_those_of_the_tables() -> None:
    table = [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.995, 4, 4.604), (0.995, 8, 3.355), (0.99, 30, 2.457)]
    for share, freedom, value in table:
        assert chance._quantile(share, freedom) == pytest.approx(value, abs=5e-4)


def test_the_interval_of_many_rows_is_that_of_their_mean() -> None:
    generator = random.Random(1)
    gaps = [generator.gauss(0.3, 1.0) for _ in range(400)]
    found = difference(rows(gaps), 0.05, draws())
    error = stdev(gaps) / 20
    assert found.value == pytest.approx(fmean(gaps))
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), rel=0.05)
    assert found.p < 0.001
    assert found.detectable == pytest.approx((1.96 + 0.84) * error, rel=0.05)


def test_rows_count_by_their_weight_and_many_of_them_are_drawn_in_blocks() -> None:
    heavy = difference([(1.0, 9.0), (-1.0, 1.0)] * 10, LEVEL, draws())
    assert heavy.value == pytest.approx(0.8)
    generator = random.Random(2)
    gaps = rows([generator.gauss(0, 1) for _ in range(5000)])
    whole, blocks = fmean(gap for gap, _ in gaps), difference(gaps, LEVEL, draws())
    assert blocks.value == pytest.approx(whole)
    assert blocks.high - blocks.low == pytest.approx(2 * 2.576 / 5000**0.5, rel=0.1)


def test_a_clear_difference_is_rarer_than_the_draws_can_count_so_that_hundreds_of_arms_can_be_told_apart() -> None:
    generator = random.Random(3)
    clear = difference(rows([generator.gauss(3.0, 1.0) for _ in range(100)]), LEVEL, draws())
    assert clear.p < LEVEL / 2080, "64 arms and the base in pairs"
    faint = difference(rows([generator.gauss(0.4, 1.0) for _ in range(100)]), LEVEL, draws())
    assert 1e-7 < faint.p < LEVEL, "where draws lie beyond zero they are counted"


def test_the_same_scores_are_always_judged_the_same_way() -> None:
    gaps = rows([0.1, -0.2, 0.3, 0.4, -0.1, 0.2, 0.6, 0.1])
    assert difference(gaps, LEVEL, draws()) == difference(gaps, LEVEL, draws())


def test_a_few_rows_tell_no_more_than_their_signs_or_students_t() -> None:
    assert difference(rows([1.0]), LEVEL, draws()).p == 1
    assert difference(rows([1.0] * 4), LEVEL, draws()).p == 0.125
    gaps = [6.5, 6.9, 7.0, 6.7]
    t = fmean(gaps) / (stdev(gaps) / 2)
    assert difference(rows(gaps), LEVEL, draws()).p == pytest.approx(
        max(2 / 10_001, 2 * (1 - chance._cumulative(t, 3))), rel=0.2
    )
    assert difference(rows([0.1, 0.3, 0.05, 0.2]), LEVEL, draws()).p > LEVEL
    assert difference(rows([1.0] * 20), LEVEL, draws()).p < LEVEL


def test_the_interval_of_a_few_rows_is_students_and_holds_what_cannot_be_told_from_nothing() -> None:
    two = difference(rows([0.436, 0.454]), LEVEL, draws())
    assert two.p > LEVEL and two.low < 0 < two.high and two.detectable > two.value, "however alike they look"
    assert two.are_few and two.rows == 2
    gaps = [0.1, 0.3, 0.05, 0.2, 0.4, 0.15]
    few = difference(rows(gaps), LEVEL, draws())
    reach = chance._quantile(1 - LEVEL / 2, 5) * stdev(gaps) / 6**0.5
    assert few.low == pytest.approx(fmean(gaps) - reach, abs=0.02)
    assert few.high == pytest.approx(fmean(gaps) + reach, abs=0.02)
    assert not difference(rows([0.1, 0.2] * 20), LEVEL, draws()).are_few


def test_what_all_rows_show_may_still_be_the_spread_over_seeds() -> None:
    """A difference of 0.1 on every row: with seeds that differ by 0.1 it is chance, with seeds that differ by 0.01 it is none."""
    gaps = rows([0.1] * 100)
    assert difference(gaps, LEVEL, draws()).p < LEVEL
    assert difference(gaps, LEVEL, draws(), (3, 3), Spread(0.1, 4)).p > 0.1
    assert difference(gaps, LEVEL, draws(), (3, 3), Spread(0.01, 4)).p < LEVEL
    given = Spread(0.04, None)
    below = chance.multiple(LEVEL, 1) * given.value > 0.1
    assert below == (difference(gaps, LEVEL, draws(), (1, 1), given).p > LEVEL)


def test_the_spread_is_pooled_over_the_arms_that_have_several_seeds() -> None:
    assert spread_of([[1.0], [2.0]]) is None
    found = spread_of([[1.0, 3.0], [10.0, 12.0], [5.0]])
    assert found == Spread(pytest.approx(2.0**0.5), 2)


def test_holm_stops_at_the_first_that_may_be_chance() -> None:
    assert told_apart([0.001, 0.2, 0.004], 0.01) == [True, False, True]
    assert told_apart([0.004, 0.004, 0.004], 0.01) == [False, False, False]
    assert told_apart([], 0.01) == []
