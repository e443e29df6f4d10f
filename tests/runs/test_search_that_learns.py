"""Issue 21: a search by Optuna's TPE in a real run: trials join as others end, and the log alone remembers the search."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp
from tests.tui.screen import text, until
from tui.app import Dashboard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STREAMS = """  wide:
    search: {space: {lora_r: [4, 8], learning_rate: {low: 1e-4, high: 1e-2, log: true}}, sampler: tpe, trials: 5, at_once: 2}"""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


async def dashboard_of(run: Path) -> str:
    """What stands on an ordinary terminal."""
    with Watcher.attach(run) as watcher:
        app = Dashboard(watcher)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "leaderboard" in text(app), seconds=20)
            return text(app)


def test_trials_are_suggested_as_others_end_each_is_an_entry_and_the_budget_ends_the_search(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=STREAMS, steps=4, rows=24, extra="  eval_steps: 2")
    config.write_text(config.read_text() + "budget: {steps: 16}\nhalving: {first_step: 2, reduction: 4}\n")
    sp.swarm("run", config.name, cwd=tmp_path)
    [path] = (tmp_path / "runs").iterdir()
    folder = sp.RunFolder(path)
    state, entries = sp.state(folder), sp.entries(folder)
    assert state.end is not None and state.end.rc == 0
    added = [entry for entry in entries if isinstance(entry.event, ev.Add)]
    assert [entry.event.ref for entry in added][:3] == ["wide.t2", "wide.t3", "wide.t4"]
    assert {entry.author for entry in added} == {"coordinator"}
    for entry in added:
        assert entry.event.why == "suggested by tpe" and "learning_rate=" in entry.event.changes
    assert len({entry.event.changes for entry in added}) == len(added), "no trial twice"
    ended = [e.seq for e in entries if isinstance(e.event, ev.Trained | ev.Stop)]
    assert added[1].seq > ended[0], "two at once: the third trial joins when one has ended"
    steps = sum((s.trained or s.checkpoints[-1]).step for s in state.streams.values())
    assert steps <= 16
    shown = sp.swarm("status", cwd=tmp_path).stdout
    assert "leaderboard: held-out, lowest first" in shown and f"budget: {steps} of 16 steps" in shown
    [board] = [json.loads(sp.swarm("status", "--json", cwd=tmp_path).stdout)["leaderboard"]]
    best = board["places"][0]
    assert best["value"] == min(one["value"] for one in board["places"]) and best["seconds"] > 0
    assert f'best: "eval_loss: {best["stream"]} ' in sp.swarm("digest", cwd=tmp_path).stdout
    screen = asyncio.run(dashboard_of(path))
    assert "leaderboard" in screen and re.search(
        rf"1 .* {best['stream']} +{best['step']}/4 +0?[.0-9]+ +\d+s +(done|promoted)", screen
    ), screen
    again = sp.swarm("run", config.name, cwd=tmp_path, check=2)
    assert f"streams.wide: wide ran before with the same settings and data; {path.name} has " in again.stderr
