"""Curves are drawn where their values are."""

from __future__ import annotations

import math
from itertools import pairwise

from tui.canvas import GUTTER, Series, decades, line, plot, rounds


def drawn(*series: Series, width: int = 40, height: int = 12, log: bool = False) -> list[str]:
    return [text.plain for text in plot(series, width, height, log=log)]


def falling(n: int = 50) -> Series:
    return Series([(float(i), 2.0 * 0.9**i) for i in range(n)], "red")


def test_every_line_fits_the_room() -> None:
    for size in ((40, 12), (20, 5), (120, 40)):
        picture = drawn(falling(), width=size[0], height=size[1])
        assert len(picture) == size[1]
        assert all(len(row) <= size[0] for row in picture)


def test_a_falling_curve_begins_at_the_upper_left_and_ends_at_the_lower_right() -> None:
    rows = [row[GUTTER + 1 :] for row in drawn(falling())[:10]]
    assert rows[0][0] != " " and rows[0][-1] == " "
    assert rows[-1][0] == " " and rows[-1][-1] != " "


def test_on_a_logarithmic_axis_an_exponential_is_straight() -> None:
    rows = [row[GUTTER + 1 :] for row in drawn(falling(), log=True)[:10]]
    starts = [len(row) - len(row.lstrip()) for row in rows if row.strip()]
    assert starts == sorted(starts)
    assert starts[5] > 10


def test_points_that_have_no_place_are_left_out() -> None:
    odd = Series([(0, math.nan), (1, 1.0), (2, math.inf), (3, -1.0), (4, 0.5)], "red")
    assert drawn(odd)
    assert drawn(odd, log=True)
    assert drawn(Series([(0, math.nan)], "red")) == []
    assert drawn(Series([(0, -1.0)], "red"), log=True) == []


def test_a_single_point_and_a_flat_curve_are_drawn() -> None:
    assert any("⠀" < c <= "⣿" for row in drawn(Series([(5, 1.0)], "red")) for c in row)
    assert drawn(Series([(0, 1.0), (9, 1.0)], "red"))
    assert drawn(Series([(0, 0.0), (9, 0.0)], "red"))


def test_no_room_means_no_picture() -> None:
    assert drawn(falling(), width=8, height=12) == []
    assert drawn(falling(), width=40, height=3) == []


def test_held_out_losses_are_crosses() -> None:
    assert "×" in "".join(drawn(Series([(0, 1.0), (9, 0.5)], "red", marks=[(5, 0.7)])))


def test_labels_stand_at_round_values() -> None:
    assert rounds(0.07, 2.33, 4) == [0.5, 1.0, 1.5, 2.0]
    assert decades(-2, 0.3, 3) == [0.01, 0.1, 1.0]
    labels = [row[: GUTTER - 1].strip() for row in drawn(falling()) if "┤" in row]
    assert "1" in labels


def test_values_with_names_have_these_on_the_axis_from_the_lowest_to_the_highest() -> None:
    """U21: whatever was measured of them."""
    modes = Series([(1.0, 1.0), (2.0, 0.0), (3.0, 0.0)], "red")
    rows = [text.plain for text in plot([modes], 40, 9, names=("single", "multi", "mirror"))]
    assert [row[: GUTTER - 1].strip() for row in rows if "┤" in row] == ["mirror", "multi", "single"]


def test_where_there_are_only_zeros_the_axis_begins_there() -> None:
    rows = drawn(Series([(1.0, 0.0), (2.0, 0.0)], "red"))
    assert not any("-" in row[:GUTTER] for row in rows) and rows[-3].startswith("     0 ┤")


def test_a_line_has_no_holes() -> None:
    dots = list(line((0, 0), (9, 30)))
    assert (dots[0], dots[-1]) == ((0, 0), (9, 30))
    assert all(abs(a[1] - b[1]) <= 1 for a, b in pairwise(dots))
