"""The dashboard over snapshots of a real run (`recorded`): nothing is cut in silence, and each moment says what a person needs then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.views.snapshot import Snapshot
from tests.tui.recorded import CROWD, load
from tests.tui.runs import Played
from tests.tui.screen import lines, shown, until

RECORDED = load()
SIZES = [(62, 16), (80, 24), (100, 30), (200, 60)]
BORDER = "│"


async def screen(snapshot: Snapshot, size: tuple[int, int]) -> list[str]:
    async with shown(Played(snapshot), size) as (app, _):
        return lines(app)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("moment", RECORDED)
async def test_at_every_size_the_run_its_streams_and_the_keys_are_seen_and_no_line_is_cut_in_silence(
    moment: str, size: tuple[int, int]
) -> None:
    snapshot = RECORDED[moment]
    seen = await screen(snapshot, size)
    assert snapshot.run in seen[0] and f"{len(snapshot.streams)} streams" in seen[0]
    assert seen[-1].endswith("q detach")
    assert all(any(f" {row.name} " in line and f" {row.state}" in line for line in seen) for row in snapshot.streams)
    assert not (cut := [part for part in panes(seen) if is_cut(part, snapshot)]), cut


def panes(seen: list[str]) -> list[str]:
    """What stands between two borders."""
    return [part.rstrip() for line in seen for part in line.split(BORDER)[1:-1:2] if part.strip()]


def is_cut(part: str, snapshot: Snapshot) -> bool:
    """Whether it is the beginning of an entry, and neither its end nor an ellipsis."""
    entries = [*snapshot.tail, *(line for row in snapshot.streams for line in row.tail)]
    entries += [line.replace(f" {row.name}/", " ", 1) for row in snapshot.streams for line in row.tail]
    text = part.strip().removesuffix("▁").rstrip()
    return any(len(text) > 20 and line.startswith(text) and line != text for line in entries)


@pytest.mark.asyncio
async def test_while_bob_must_approve_the_smallest_screen_says_so_with_the_key() -> None:
    seen = await screen(RECORDED["waits"], (62, 16))
    assert "waits for bob: `swarm approve" in seen[1]
    assert "a approve" in seen[-1]
    assert "x stop" not in seen[-1], "the selected stream is done"
    [row] = [line for line in seen if "▸" in line]
    assert row.endswith("…bob: `swarm approve lora-8`"), "what is cut of a reason is marked"


@pytest.mark.asyncio
async def test_the_clock_has_room_before_counters_that_are_zero() -> None:
    for size in SIZES[:3]:
        assert "eta" in (await screen(RECORDED["train"], size))[0]


@pytest.mark.asyncio
async def test_an_evaluation_shows_how_far_it_is() -> None:
    [row] = [line for line in await screen(RECORDED["evaluate"], (100, 30)) if " evaluate " in line and "/800" in line]
    assert "passes · for " in row


@pytest.mark.asyncio
async def test_without_a_coordinator_the_banner_says_that_workers_train_on() -> None:
    seen = " ".join(await screen(RECORDED["no coordinator"], (80, 24)))
    assert "no coordinator · nothing recorded for" in seen and "train on; swarm resume" in seen


@pytest.mark.asyncio
async def test_a_stream_that_failed_says_why_and_the_result_stands_on_top() -> None:
    for size in SIZES:
        seen = await screen(RECORDED["ended"], size)
        assert seen[1].startswith(" ended with exit status 1 · ★")
        [failed] = [line for line in seen if "too-fast" in line and " failed " in line]
        assert "has no gradient" in failed


@pytest.mark.asyncio
async def test_64_streams_are_sorted_found_by_their_state_and_have_a_leader() -> None:
    [crowd] = load(CROWD).values()
    async with shown(Played(crowd), (80, 24)) as (app, pilot):
        assert "64 streams" in lines(app)[0]
        await pilot.press("b", "b", "b", "b")
        await until(pilot, lambda: app.view.order == "eval_loss" and "★" in next(x for x in lines(app) if "/12" in x))
        table = [line for line in lines(app) if "/12" in line]
        found = [float(line.split("12/12")[1].split()[1]) for line in table]
        assert len(found) >= 4 and found == sorted(found) and table[0].startswith("▸"), (
            "the best is on top and selected"
        )
        assert "★" in table[0]
        await pilot.press("slash", *"s4")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.view.rows) == 10)
        assert sorted(row.name[:2] for row in app.view.rows) == ["s4"] * 10


@pytest.mark.asyncio
async def test_the_selected_stream_stays_selected_when_another_comes_first() -> None:
    snapshot = RECORDED["train"]
    source = Played(snapshot)
    async with shown(source) as (app, pilot):
        first = snapshot.streams[0].name
        source.become(replace(snapshot, streams=snapshot.streams[::-1]))
        await pilot.pause(0.1)
        assert app.view.row and app.view.row.name == first
