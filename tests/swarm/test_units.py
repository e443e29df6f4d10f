"""Numbers become short words, and never break a column."""

from __future__ import annotations

import math

import pytest

from swarm import units

AWKWARD = (
    0.0,
    1.0,
    0.5,
    9.9996,
    72.0,
    99.96,
    999.4,
    999.5,
    999.6,
    3071.0,
    99_950.0,
    999_499.0,
    999_500.0,
    1.3e6,
    7.25e9,
    5e13,
    -3.0,
)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (None, "-"),
        (72, "72"),
        (3071, "3.1k"),
        (120_000, "120k"),
        (999_600, "1.0M"),
        (1_300_000, "1.3M"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_counts_are_short(number: float | None, said: str) -> None:
    assert units.count(number) == said


@pytest.mark.parametrize(
    ("number_bytes", "said"),
    [(None, "-"), (0, "0 B"), (412_000_000, "412 MB"), (999_900_000, "1.0 GB"), (1.9e9, "1.9 GB")],
)
def test_sizes_are_decimal(number_bytes: float | None, said: str) -> None:
    assert units.size(number_bytes) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (14.2, "14s"),
        (59.7, "1m00"),
        (192, "3m12"),
        (7_500, "2h05"),
        (273_600, "3d04"),
        (-5, "0s"),
        (math.inf, "inf"),
    ],
)
def test_durations_name_two_units_at_most(seconds: float | None, said: str) -> None:
    assert units.duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0.412, "0.412"), (12.312, "12.31"), (0.00041, "4e-04"), (0.0, "0.000"), (math.nan, "nan")],
)
def test_a_loss_is_printed_at_any_size(value: float | None, said: str) -> None:
    assert units.loss(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(None, "-"), (1.2e-3, "1.2e-3"), (2e-4, "2.0e-4"), (0, "0"), (3e-11, "3.0e-11")]
)
def test_a_learning_rate_is_a_mantissa_and_an_exponent(value: float | None, said: str) -> None:
    assert units.rate(value) == said


@pytest.mark.parametrize("number", AWKWARD)
def test_no_figure_is_wider_than_its_column(number: float) -> None:
    assert len(units.count(number)) <= 5
    assert len(units.size(abs(number))) <= 8
    assert len(units.duration(min(abs(number), 8e6))) <= 5


def test_a_difference_has_a_real_minus() -> None:
    assert [units.signed(x) for x in (-1.589, 0.02, None)] == ["−1.59", "+0.02", "-"]


def test_a_share_is_a_percentage_and_stays_between_nothing_and_all() -> None:
    assert [units.percent(x) for x in (0.913, None, math.nan)] == ["91%", "-", "-"]
    assert [units.share(*x) for x in ((60, 120), (130, 120), (3, 0))] == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("done", [0.0, 0.01, 0.49, 0.5, 0.99, 1.0, 7.0, -1.0])
def test_a_bar_fills_its_width_at_any_share(done: float) -> None:
    filled, left = units.bar(done, 6)
    assert len(filled + left) == 6
    assert (left == "") == (done >= 0.99)


def test_a_sparkline_falls_where_the_loss_falls() -> None:
    drawn = units.spark([2.0 / (i + 1) for i in range(100)], 8)
    assert len(drawn) == 8
    assert drawn == "".join(sorted(drawn, reverse=True))
    assert (drawn[0], drawn[-1]) == ("▇", "▁")


def test_a_sparkline_of_odd_series_is_still_a_sparkline() -> None:
    assert units.spark([], 8) == ""
    assert units.spark([math.nan, math.inf], 8) == ""
    assert len(units.spark([1.0, math.nan, 0.5], 8)) == 2
    assert units.spark([0.4, 0.4, 0.4], 8) == "▃▃▃"
    assert len(units.spark([0.0, -1.0, 2.0], 8)) == 3


def test_smoothing_keeps_the_first_value_and_passes_over_what_is_not_finite() -> None:
    assert units.smooth([2.0, 2.0, 2.0], 0.8) == pytest.approx([2.0, 2.0, 2.0])
    assert units.smooth([2.0, math.nan, 1.0], 0.5) == pytest.approx([2.0, 2.0, 4 / 3])
