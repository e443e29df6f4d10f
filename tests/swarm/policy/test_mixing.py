"""Mixtures by weight: exact to a row, for any counts and weights."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import UserError
from swarm.policy.mixing import in_words, mixed, shares


def test_three_to_one_to_one_is_that_and_not_the_natural_counts() -> None:
    """A28."""
    parts = shares([3, 1, None])
    assert parts == [Fraction(3, 5), Fraction(1, 5), Fraction(1, 5)]
    assert mixed([100, 60, 12], parts, "repeat") == [180, 60, 60]
    assert mixed([100, 60, 12], parts, "sample") == [36, 12, 12]
    assert in_words([180, 60, 60]) == "180 : 60 : 60 (60.0 % : 20.0 % : 20.0 %)"


def test_without_weights_nothing_is_mixed() -> None:
    assert shares([None, None]) is None


weights = st.lists(st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0, 7.25]), min_size=1, max_size=5)


@given(st.data(), weights)
def test_each_part_is_right_to_a_row_and_no_row_is_lost_or_used_twice(data: st.DataObject, chosen: list[float]) -> None:
    counts = data.draw(st.lists(st.integers(400, 5000), min_size=len(chosen), max_size=len(chosen)))
    parts = shares(chosen)
    assert parts
    for strategy in ("repeat", "sample"):
        made = mixed(counts, parts, strategy)  # type: ignore[arg-type]
        assert all(abs(rows - part * sum(made)) <= 1 for rows, part in zip(made, parts, strict=True))
        if strategy == "sample":
            assert all(rows <= count for rows, count in zip(made, counts, strict=True))
        else:
            assert all(rows >= count - 1 for rows, count in zip(made, counts, strict=True))


def test_a_dataset_without_rows_or_with_too_small_a_part_is_refused_by_number() -> None:
    with pytest.raises(UserError, match=r"datasets\.1: no row of it is left to mix"):
        mixed([10, 0], [Fraction(1, 2), Fraction(1, 2)], "repeat")
    with pytest.raises(UserError, match=r"datasets\.1\.weight: gives it no row of 10"):
        mixed([10, 5], [Fraction(99, 100), Fraction(1, 100)], "sample")


@pytest.mark.parametrize("weights", [[1e308, 1e-308], [5000.0, 1.0]])
def test_a_weight_that_would_fill_the_machine_is_refused(weights: list[float]) -> None:
    parts = shares(weights)
    assert parts
    with pytest.raises(
        UserError, match=r"datasets\.0\.weight: makes more than 1000 times the 24 rows .*; lower it, or"
    ):
        mixed([12, 12], parts, "repeat")
