"""Columns give way by rank, and a line never grows wider than its window."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from rich.text import Text

from tests.tui.runs import run_at, sketch, stream
from tui.panes.line import Part, compose
from tui.panes.streams import COLUMNS, columns
from tui.table import Column, Placed, fit, fitted
from tui.view import View

ESSENTIAL = {"mark", "name", "state", "bar", "step", "loss"}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 180, 300])
def test_columns_never_overlap_nor_leave_the_window(width: int) -> None:
    placed = fit(columns(View(run_at(72, n=64))), width)
    assert all(a.x + a.width < b.x for a, b in pairwise(placed))
    assert placed[-1].x + placed[-1].width <= width
    assert {at.column.name for at in placed} >= ESSENTIAL


def test_a_window_of_eighty_shows_what_is_judged_by() -> None:
    names = {at.column.name for at in fit(columns(View(sketch())), 80)}
    assert names >= ESSENTIAL | {"eval_loss", "tokens_per_second", "eta", "why"}


def test_a_long_reason_is_cut_before_its_column_is_left_out() -> None:
    waiting = stream(1, 150, state="wait", why="again: its process has ended")
    run = replace(sketch(), streams=(stream(0, 72), waiting))
    for width in (80, 100):
        [why] = [at for at in fit(columns(View(run)), width) if at.column.name == "why"]
        assert why.width >= 9 and why.x + why.width <= width


def test_a_window_of_a_hundred_shows_the_sketch() -> None:
    names = {at.column.name for at in fit(columns(View(run_at(72))), 100)}
    assert names >= ESSENTIAL | {
        "spark",
        "best_loss",
        "eval_loss",
        "learning_rate",
        "tokens_per_second",
        "device",
        "eta",
        "why",
    }


def test_a_wide_window_shows_every_column() -> None:
    assert len(fit(columns(View(run_at(72))), 180)) == len(COLUMNS)


def test_what_is_too_long_ends_in_dots_and_figures_stand_right() -> None:
    at = Placed(Column("a", "a", 5, right=True), 0, 5)
    assert [fitted(Text(said), at).plain for said in ("12", "1234567")] == ["   12", "1234…"]


def test_wide_characters_are_measured_in_cells() -> None:
    at = Placed(Column("a", "a", 5), 0, 5)
    assert fitted(Text("漢字漢字"), at).cell_len == 5


def test_a_line_gives_up_the_least_needed_part() -> None:
    parts = [Part(Text("always")), Part(Text("rarely"), rank=2), Part(Text("right"), rank=1, right=True)]
    assert compose(parts, 22, " ").plain == "always rarely    right"
    assert compose(parts, 14, " ").plain == "always   right"
    assert compose(parts, 4, " ").plain == "alw…"
