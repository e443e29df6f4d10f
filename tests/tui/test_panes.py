"""A pane is a file and an entry in the list: nothing else of the dashboard names it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.views.snapshot import Leaderboard, Place
from tests.tui.runs import Played, run_at, sketch
from tests.tui.screen import shown, text, until
from tui import app as dashboard
from tui import panes
from tui.panes.curves import Curves

TOTALS = """
from textual.widgets import Static

from tui.panes.pane import Pane


class Totals(Static, Pane):
    def show(self, view):
        self.border_title = "totals"
        self.update(f"{sum(row.step for row in view.snapshot.streams)} steps in all")
"""


@pytest.mark.asyncio
async def test_a_new_pane_is_one_file_and_one_entry_in_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "totals.py").write_text(TOTALS)
    monkeypatch.setattr(panes, "__path__", [*panes.__path__, str(tmp_path)])
    totals = importlib.import_module("tui.panes.totals").Totals
    monkeypatch.setattr(dashboard, "PANES", (*dashboard.PANES, ("bottom", "totals", totals)))
    source = Played(run_at(72, n=1))
    async with shown(source, (180, 50)) as (app, pilot):
        assert "─ totals ─" in text(app) and "72 steps in all" in text(app)
        source.become(run_at(90, n=1))
        await until(pilot, lambda: "90 steps in all" in text(app))


@pytest.mark.asyncio
async def test_a_pane_that_is_taken_off_the_list_leaves_its_room_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = tuple(entry for entry in dashboard.PANES if entry[1] != "detail")
    monkeypatch.setattr(dashboard, "PANES", rest)
    async with shown(Played(sketch())) as (app, _):
        assert app.query_one(Curves).outer_size.width == app.size.width


@pytest.mark.asyncio
async def test_a_mode_has_its_name_and_the_legend_names_those_that_have_a_curve() -> None:
    """U21: at 80 columns."""
    run = sketch()
    curves = {**run.streams[1].curves, "mode": ((1, 0.0), (60, 2.0)), "phi": ((1, 0.0), (60, 0.9))}
    steered = replace(
        run.streams[1], curves=curves, modes=("single", "multi", "mirror"), figures={"phi": 0.9, "mode": 2.0}
    )
    source = Played(replace(run, streams=(run.streams[0], steered)))
    async with shown(source, (80, 40)) as (app, pilot):
        await pilot.press("down", "v")
        await until(pilot, lambda: "─ phi · as measured ─" in text(app))
        await pilot.press("v")
        await until(pilot, lambda: "mirror ┤" in text(app))
        legend = next(line for line in text(app).splitlines() if "■ lora-32 " in line and "│" in line)
        assert "lora-8" not in legend.partition("││")[0] and "single ┤" in text(app)
        await until(pilot, lambda: "mode      mirror" in text(app))


def places(*found: tuple[str, float, str]) -> tuple[Place, ...]:
    return tuple(Place(i, name, 60, 120, value, 95.0, 0.02, state) for i, (name, value, state) in enumerate(found, 1))


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [(80, 24), (100, 30), (180, 50)], ids=str)
async def test_where_trials_compete_the_leaderboard_stands_by_itself_readable_follows_the_run_and_can_be_hidden(
    size: tuple[int, int],
) -> None:
    first = places(("lora-32", 0.412, "train"), ("lora-8", 0.52, "kept"), ("dora-8", 0.61, "stopped at 60"))
    board = Leaderboard("eval_loss", "min", first, is_search=True)
    source = Played(replace(sketch(), leaderboard=board))
    async with shown(source, size) as (app, pilot):
        seen = text(app)
        assert "leaderboard" in seen and "held-out, lowest first" in seen
        lines = [" ".join(line.split("│")[1].split()) for line in seen.splitlines() if "60/120" in line and "│" in line]
        assert lines == [
            "1 ■ lora-32 60/120 0.412 1m35 $0.02 train", "2 ● lora-8 60/120 0.520 1m35 $0.02 kept",
            "3 ▲ dora-8 60/120 0.610 1m35 $0.02 stopped at 60",
        ]  # fmt: skip
        turned = places(("dora-8", 0.31, "train"), ("lora-32", 0.412, "promoted"))
        source.become(replace(sketch(), leaderboard=replace(board, places=turned)))
        await until(pilot, lambda: "0.310" in text(app) and "stopped at 60" not in text(app))
        await pilot.press("e")
        await until(pilot, lambda: "leaderboard" not in text(app))
        assert "─ log ─" in text(app)


@pytest.mark.asyncio
async def test_in_a_run_without_trials_the_leaderboard_opens_by_its_key_and_says_what_is_missing() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        assert "leaderboard" not in text(app)
        await pilot.press("e")
        await until(pilot, lambda: "fewer than two are measured" in text(app))
