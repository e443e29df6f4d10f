"""What a person sees and does: keys, acts and refusals, layouts, floods, the end."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from textual.widgets import Input

from swarm.errors import UserError, UserErrors
from tests.tui.runs import Played, run_at, sketch, stream
from tests.tui.screen import lines, shown, text, until
from tui.app import Dashboard
from tui.panes.curves import Curves
from tui.panes.streams import Streams
from tui.panes.workers import Workers
from tui.screens import DetailScreen, KeysScreen, LogScreen, Prompt, Question

pytestmark = pytest.mark.asyncio


def notes(app: Dashboard) -> list[str]:
    return [note.message for note in app._notifications]


# ---- what is seen


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (180, 50)])
async def test_the_essential_figures_are_seen_at_every_size(size: tuple[int, int]) -> None:
    async with shown(Played(sketch()), size) as (app, _):
        seen = lines(app)
        assert len(seen) == size[1]
        assert all(len(line) <= size[0] for line in seen)
        for row in sketch().streams:
            line = next(line for line in seen if f" {row.name} " in line and f"{row.step}/120" in line)
            assert (
                row.state in line and f"{row.figures['loss']:.3f}" in line and f"{row.figures['eval_loss']:.3f}" in line
            )
        assert "no step for 31 s" in text(app)
        assert "demo-1121-0512-7f3a" in seen[0] and "log 22 ok" in seen[0]
        assert "4 streams · 2 train 1 validate 1 STALLED" in seen[0]
        assert "p pause" in seen[-1] and "x stop" in seen[-1] and "q detach" in seen[-1]
        assert "verdict" in text(app)


async def test_a_hundred_columns_show_the_bus_and_the_learning_rate() -> None:
    async with shown(Played(run_at(72)), (100, 30)) as (app, _):
        assert "bus 41/s  gap 0 drop 0  log 22 ok" in lines(app)[0]
        for word in ("8.1e-4", "3.1k", "14s", "cpu", "2.310 → 0.241", "token 11", "lease 48s"):
            assert word in text(app)


async def test_the_detail_follows_the_selected_stream() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        await pilot.press("down")
        assert "α64" in text(app) and "40 80 120" in text(app)
        await pilot.press("G")
        assert "lora-8 · STALLED" in text(app)


async def test_workers_are_a_key_away_and_stand_beside_the_log_where_there_is_room() -> None:
    async with shown(Played(sketch()), (80, 24)) as (app, pilot):
        assert "trainer-2  working" not in text(app)
        await pilot.press("w")
        assert "trainer-2  working" in text(app)
        await pilot.press("d")
        assert "workers by device" in text(app)
        await pilot.press("d")
        assert not app.query_one(Workers).display
    async with shown(Played(sketch()), (180, 50)) as (app, _):
        assert "trainer-2" in text(app) and "checkpoint" in text(app)


async def test_a_marked_stream_joins_the_overlay_and_leaves_it() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        assert "● lora-8  ■ lora-32  ▲ dora-8  ◆ qlora-8" in text(app), "told apart without colours"
        await pilot.press("m")
        assert "▸·  lora-8" in text(app)
        await until(pilot, lambda: [row.name for row in app.query_one(Curves).rows] == ["lora-32", "dora-8", "qlora-8"])
        await pilot.press("y")
        assert "loss · smoothed · log" in text(app)


async def test_a_filter_narrows_the_table_and_escape_widens_it() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        await pilot.press("slash", *"stalled")
        assert app.query_one(Streams).keys == ["qlora-8"]
        await pilot.press("enter", "p")
        assert app.feed.source.said[-1][:2] == ("pause", "qlora-8")  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert len(app.query_one(Streams).keys) == 4
        await pilot.press("slash", *"zebra")
        await until(pilot, lambda: "no stream matches 'zebra'" in text(app))


async def test_enter_shows_one_stream_at_full_size_and_it_stays_live() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("enter")
        assert isinstance(app.screen, DetailScreen)
        await until(pilot, lambda: app.screen.query_one(Curves).times_drawn > 0 and "×" in text(app))
        source.become(run_at(90))
        await until(pilot, lambda: f"{run_at(90).streams[0].figures['loss']:.3f}" in text(app))
        await pilot.press("q")
        assert not isinstance(app.screen, DetailScreen) and app.is_running


async def test_the_whole_log_is_read_filtered_and_followed() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("down", "l")
        await until(pilot, lambda: "8 entries" in text(app))
        assert isinstance(app.screen, LogScreen)
        await pilot.press("f")
        await until(pilot, lambda: "log of lora-32" in text(app) and "6 entries" in text(app))
        await pilot.press("slash", *"claim", "enter")
        assert "2 of 6" in text(app)
        source.log.append("23 05:14 claim lora-32/evaluate  light-1  60 s")
        source.become(replace(source.now, seq=23))
        await until(pilot, lambda: "lora-32/evaluate" in text(app))
        await pilot.press("escape")
        assert "7 entries" in text(app)
        await pilot.press("escape")
        assert not isinstance(app.screen, LogScreen)


async def test_the_screen_of_keys_lists_every_key() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        await pilot.press("question_mark")
        assert isinstance(app.screen, KeysScreen)
        assert "stop the whole run" in text(app)


async def test_the_palette_opens() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        await pilot.press("colon")
        await until(pilot, lambda: "a new stream with the weights" in text(app))
        await pilot.press(*"lead", "enter")
        await until(pilot, lambda: "─ leaderboard ─" in text(app))


# ---- what is done


async def test_p_pauses_and_lets_a_paused_stream_go_on() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("p")
        await until(pilot, lambda: notes(app) == ["27 pause lora-8"])
        source.become(replace(sketch(), streams=(stream(0, 72, state="paused"),)))
        await until(pilot, lambda: "paused" in text(app))
        await pilot.press("p")
        await until(pilot, lambda: len(source.said) == 2)
    assert source.said == [("pause", "lora-8", {}), ("resume", "lora-8", {})]


async def test_p_takes_a_pause_back_that_waits_for_the_end_of_a_step() -> None:
    row = replace(stream(0, 72), wish="pause", why="pauses after this step")
    source = Played(replace(sketch(), streams=(row,)))
    async with shown(source) as (app, pilot):
        await until(pilot, lambda: "pauses after" in text(app))
        await pilot.press("p")
        await until(pilot, lambda: len(source.said) == 1)
    assert source.said == [("resume", "lora-8", {})]


async def test_x_asks_before_it_stops() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("x")
        assert isinstance(app.screen, Question) and "Stop lora-8 at step 72?" in text(app)
        await pilot.press("n")
        await pilot.press("x", "y")
        await until(pilot, lambda: bool(source.said))
    assert source.said == [("stop", "lora-8", {})]


async def test_a_question_asked_about_one_stream_is_answered_for_that_stream() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("x")
        source.become(replace(sketch(), streams=sketch().streams[1:]))
        await until(pilot, lambda: app.view.row is not None and app.view.row.name == "lora-32")
        await pilot.press("y")
        await until(pilot, lambda: bool(source.said))
    assert source.said == [("stop", "lora-8", {})]


async def test_a_refusal_is_shown_in_the_words_of_the_refusal() -> None:
    source = Played(sketch())
    source.refusal = UserError("pause lora-8", "it [bold]just[/] ended", "see `swarm log`")
    async with shown(source) as (app, pilot):
        await pilot.press("p")
        await until(pilot, lambda: "[bold]just[/]" in text(app))
        assert notes(app) == ["pause lora-8: it [bold]just[/] ended; see `swarm log`"]


async def test_a_finished_stream_is_neither_paused_nor_stopped() -> None:
    source = Played(replace(sketch(), streams=(stream(0, 120, state="promoted"),)))
    async with shown(source) as (app, pilot):
        await pilot.press("p", "x")
        assert notes(app) == ["lora-8 is promoted: nothing to pause", "lora-8 is promoted: nothing to stop"]
    assert source.said == []


async def test_a_note_goes_into_the_log_and_not_into_the_filter() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("o", *"q x", "enter")
        await until(pilot, lambda: bool(source.said))
        await pilot.press("o")
        assert isinstance(app.screen, Prompt)
        await pilot.press("a", "escape")
        assert app.view.words == ""
    assert source.said == [("post", "lora-8", {"body": "q x"})]


async def test_c_and_n_ask_for_a_stream_that_joins_and_a_refused_line_is_offered_again() -> None:
    source = Played()
    source.refusal = UserErrors([UserError("command line: streams.x.lora_rr", "unknown setting", "did you mean `lora_r`?")], "nothing was added")  # fmt: skip
    async with shown(source) as (app, pilot):
        await pilot.press("c", *"lora_rr=4 -- it jumps", "enter")
        await until(pilot, lambda: "unknown setting" in text(app))
        source.refusal = None
        await pilot.press("c")
        assert isinstance(app.screen, Prompt) and app.screen.query_one(Input).value == "lora-8-2 lora_rr=4 -- it jumps"
        app.screen.query_one(Input).value = "calm learning_rate=1e-4 -- it jumps"
        await pilot.press("enter", "n")
        assert app.screen.query_one(Input).value == "lora-8-2 "
        await pilot.press("enter")
        await until(pilot, lambda: len(source.said) == 2)
    clone = {"like": "lora-8", "changes": ["learning_rate=1e-4"], "warm": True, "why": "it jumps"}
    assert source.said[0] == ("add", "calm", clone)
    assert source.said[1] == ("add", "lora-8-2", {"like": "lora-8", "changes": [], "warm": False, "why": ""})


async def test_who_only_looks_is_offered_no_act() -> None:
    source = Played(sketch())
    async with shown(source, readonly=True) as (app, pilot):
        await pilot.press("p", "x", "o")
        assert source.said == [] and not isinstance(app.screen, (Question, Prompt))
        assert "pause" not in lines(app)[-1] and "stop" not in lines(app)[-1] and "detach" in lines(app)[-1]
        await pilot.press("ctrl+c")
        await pilot.pause()
    assert app.return_code == 0 and source.said == []


# ---- leaving


async def test_q_detaches_and_the_run_goes_on() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0 and source.said == []


@pytest.mark.parametrize("answer", ["y", "ctrl+c"])
async def test_ctrl_c_asks_stops_the_run_and_exits_130(answer: str) -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("ctrl+c")
        assert "Stop the whole run?" in text(app) and source.said == []
        await pilot.press(answer)
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 130 and source.said == [("stop", "run", {})]


async def test_ctrl_c_in_the_filter_asks_too_and_no_keeps_watching() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        await pilot.press("slash", "ctrl+c")
        assert isinstance(app.screen, Question)
        await pilot.press("n")
        assert app.is_running and isinstance(app.focused, Input)


async def test_a_refused_stop_of_the_run_does_not_leave() -> None:
    source = Played(sketch())
    source.refusal = UserError("stop run", "no coordinator runs", "`swarm resume` starts one")
    async with shown(source) as (app, pilot):
        await pilot.press("ctrl+c", "y")
        await until(pilot, lambda: bool(notes(app)))
        assert app.is_running


async def test_when_the_run_ends_over_an_open_note_its_text_stays_and_the_result_stands_on_top_until_q() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        await pilot.press("o", *"half a w")
        source.become(replace(sketch(), state="ended", rc=0, promoted="lora-32", why="held-out 0.110"))
        await until(pilot, lambda: app.view.snapshot.state == "ended")
        await pilot.pause(0.3)
        assert isinstance(app.screen, Prompt) and app.screen.query_one(Input).value == "half a w"
        await pilot.press(*"ord", "enter")
        await until(pilot, lambda: source.said == [("post", "lora-8", {"body": "half a word"})])
        assert "ended · ★ lora-32 promoted: held-out 0.110" in lines(app)[1]
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0


async def test_keys_typed_ahead_of_leaving_open_nothing_any_more() -> None:
    async with shown(Played(sketch())) as (app, pilot):
        for key in "qlloq":
            app.simulate_key(key)
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0
    assert len(app.screen_stack) <= 1


async def test_a_run_that_had_ended_before_can_be_looked_at() -> None:
    async with shown(Played(replace(sketch(), state="ended", rc=1, why="qlora-8 failed"))) as (app, pilot):
        await pilot.pause(0.3)
        assert app.is_running
        assert "ended with exit status 1 · qlora-8 failed" in text(app)


async def test_a_lost_coordinator_is_seen_with_what_to_do() -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        source.become(replace(sketch(), state="no coordinator"))
        await until(pilot, lambda: "no coordinator" in text(app) and "swarm resume" in text(app))
        source.become(sketch())
        await until(pilot, lambda: "no coordinator" not in text(app))


# ---- trouble


async def test_no_control_character_and_no_markup_of_others_reaches_the_screen() -> None:
    evil = "\x1b[2J\x07[bold red]x[/]\u202e\n"
    run = sketch()
    streams = tuple(
        replace(row, why=evil, settings=evil, verdict=evil, worker=evil, device=evil) for row in run.streams
    )
    workers = tuple(replace(w, why=evil, task=evil) for w in run.workers)
    source = Played(
        replace(
            run, run=evil, devices=evil, streams=streams, workers=workers, tail=(f"1 05:12 post run  eve  {evil}", evil)
        )
    )
    source.log = [evil]
    async with shown(source, (180, 50)) as (app, pilot):
        for keys in ((), ("enter",), ("escape", "l")):
            await pilot.press(*keys)
            await pilot.pause(0.1)
            assert all(c == "\n" or c.isprintable() for c in text(app))
            assert "[bold red]x[/]" in text(app)


async def test_a_flood_of_64_streams_is_drawn_a_few_times_and_keys_are_handled_meanwhile() -> None:
    source = Played(moving=lambda tick: run_at(tick % 120, n=64, seq=tick), hertz=200)
    async with shown(source, (180, 50), period_seconds=0.25) as (app, pilot):
        before, curves, asked, began = app.pictures, app.query_one(Curves).times_drawn, source.asked, time.monotonic()
        for _ in range(4):
            await pilot.press("down")
            await pilot.pause(0.5)
        assert app.query_one(Streams).cursor == 4
        seconds = time.monotonic() - began
        assert 1 <= app.pictures - before <= 4 * seconds + 2
        assert app.query_one(Curves).times_drawn - curves <= seconds + 2
        assert source.asked - asked <= 4 * seconds + 2


async def test_only_cells_that_changed_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Played(sketch())
    async with shown(source) as (app, pilot):
        drawn: list[object] = []
        table = app.query_one(Streams)
        monkeypatch.setattr(table, "refresh", lambda *regions, **how: drawn.extend(regions))
        seen = app.pictures
        source.become(
            replace(
                sketch(),
                streams=(
                    replace(sketch().streams[0], figures={**sketch().streams[0].figures, "loss": 0.2}),
                    *sketch().streams[1:],
                ),
            )
        )
        await until(pilot, lambda: app.pictures > seen)
        assert len(drawn) == 1


async def test_many_streams_scroll_under_their_head() -> None:
    async with shown(Played(run_at(72, n=64)), (80, 24)) as (app, pilot):
        await pilot.press("G")
        assert "qlora-8-s15" in text(app) and "stream" in lines(app)[1]
        assert len(app.query_one(Streams).keys) == 64


async def test_a_window_may_be_resized_to_anything() -> None:
    async with shown(Played(sketch()), (100, 30)) as (app, pilot):
        for size in ((20, 6), (300, 80), (10, 3), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert all(len(line) <= size[0] for line in lines(app))
        assert "lora-32" in text(app) and "q detach" in lines(app)[-1]


async def test_before_the_first_stream_the_screen_says_so() -> None:
    async with shown(Played(replace(run_at(0, n=0), state="starting"))) as (app, pilot):
        assert "no stream yet" in text(app) and "starting" in text(app)
        await pilot.press("p", "x", "m", "enter", "o", "escape")
        assert app.is_running


async def test_when_nothing_can_be_watched_any_more_it_leaves_with_the_reason() -> None:
    class Dying(Played):
        def wait(self, timeout_seconds: float) -> bool:
            raise OSError("the folder is gone")

    app = Dashboard(Dying(sketch()), period_seconds=0.01)
    async with app.run_test() as pilot:
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 1
