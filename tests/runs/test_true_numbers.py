"""What screens and commands say of a real run, held against its log and its metrics: clock, pace, speed, and who must act."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.agents.agent import Agent
from swarm.agents.mcp import Tools
from swarm.artifacts.metrics import MetricsFile
from swarm.event import Event
from swarm.views.snapshot import Snapshot, StreamRow
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp
from tui.panes.header import advice
from tui.view import View

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
STEPS = 600


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def time_of(folder: sp.RunFolder, kind: type[Event], nth: int = -1) -> float:
    return [entry.time for entry in sp.entries(folder) if isinstance(entry.event, kind)][nth]


def measured_at(folder: sp.RunFolder, until: int) -> list[float]:
    """Unix seconds at which each training step was measured, up to step `until`."""
    metrics = MetricsFile(folder.metrics, readonly=True)
    found = [float(row["time"]) for row in metrics.read("fast") if row["kind"] == "train" and int(row["step"]) <= until]
    metrics.close()
    return found


def banner(snapshot: Snapshot) -> str:
    said = advice(View(snapshot))
    return said.plain if said else ""


def test_clock_pace_and_speed_are_those_of_the_log_and_the_metrics_and_who_must_approve_is_told(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  fast: {lora_r: 2}", steps=STEPS, extra="  save_total_limit: 1")
    config.write_text(config.read_text() + "promotion: {approvers: [bob]}\n")
    folder = sp.start(config)
    with Watcher.attach(folder.path) as watcher:

        def row(state: str) -> StreamRow | None:
            found = next(iter(watcher.snapshot().streams), None)
            return found if found and found.state == state else None

        begun = sp.wait_for(lambda: (found := row("train")) and found.step == 0 and found, "training", folder=folder)
        assert begun.steps == STEPS, "the config states max_steps, so nobody waits for the first step to know them"
        sp.wait_for(lambda: (found := row("train")) and found.step > 5, "steps", folder=folder)

        sp.swarm("pause", "fast", cwd=tmp_path)
        paused = sp.wait_for(lambda: row("paused"), "a pause", folder=folder)
        assert (paused.figure("tokens_per_second"), paused.eta_seconds) == (None, None), "nothing moves"
        time.sleep(8)
        sp.swarm("resume", "--stream", "fast", cwd=tmp_path)
        moving = sp.wait_for(
            lambda: (found := row("train")) and found.eta_seconds and found, "an estimate", folder=folder
        )
        assert moving.eta_seconds
        pace = moving.eta_seconds / (STEPS - moving.step)
        sp.wait_for(lambda: sp.state(folder).streams["fast"].trained, "the end of training", folder=folder)
        since = [at for at in measured_at(folder, until=moving.step) if at >= time_of(folder, ev.Resume)]
        seconds = [later - earlier for earlier, later in pairwise(since)]
        assert seconds and min(seconds) <= pace <= max(seconds), "the pace is that of the steps since the pause"

        waits = "fast: waits for bob: `swarm approve fast`"
        sp.wait_for(lambda: watcher.snapshot().waits == waits, "the wait for bob", folder=folder)
        assert banner(watcher.snapshot()) == f"waiting: {waits}"
        everybody_who_looks_is_told(folder, tmp_path)

        sp.swarm("invite", "bob", cwd=tmp_path)
        assert sp.swarm("approve", "fast", cwd=tmp_path).stderr == "fast waits for bob: `swarm approve fast`\n"
        assert watcher.say("approve", "fast").endswith("; it waits for bob: `swarm approve fast`")
        assert sp.swarm("approve", "fast", "--as", "bob", cwd=tmp_path).stderr == ""
        sp.wait_for_end(folder)
        sp.wait_for(lambda: watcher.snapshot().state == "ended", "the end on screens")
        time.sleep(2.5)
        ended = watcher.snapshot()
        assert ended.elapsed_seconds == time_of(folder, ev.End) - time_of(folder, ev.Run), "the clock stands"
        assert banner(ended).startswith("ended · ★ fast promoted: lowest eval_loss")
        [last] = ended.streams
        trained = sp.state(folder).streams["fast"].trained
        assert trained and last.mean_losses == (trained.figures["first_loss"], trained.figures["loss"])
        metrics = MetricsFile(folder.metrics, readonly=True)
        measured = [found for found in metrics.read("fast") if found["kind"] == "train"]
        metrics.close()
        assert (last.step, last.figure("loss"), last.figure("first_loss")) == (
            STEPS,
            measured[-1]["loss"],
            measured[0]["loss"],
        )
        assert last.figure("best_loss") == min(found["loss"] for found in measured)
        sp.wait_for(lambda: watcher.snapshot().state == "ended", "the end")
        assert {worker.state for worker in ended.workers} <= {"left", "leaving", "idle"}, "sent home, not dead"


def everybody_who_looks_is_told(folder: sp.RunFolder, tmp_path: Path) -> None:
    """Digest, status, inbox and MCP."""
    said = "waits for bob: `swarm approve fast`"
    assert said in sp.swarm("status", cwd=tmp_path).stdout
    assert said in sp.swarm("digest", cwd=tmp_path).stdout
    sp.swarm("invite", "bob", cwd=tmp_path)
    sp.swarm("invite", "ada", cwd=tmp_path)
    assert json.loads(sp.swarm("inbox", "--as", "bob", "--json", cwd=tmp_path).stdout)["promotion"] == "fast"
    assert "`swarm approve fast`" in sp.swarm("inbox", "--as", "bob", cwd=tmp_path).stdout
    assert json.loads(sp.swarm("inbox", "--as", "ada", "--json", cwd=tmp_path).stdout)["promotion"] is None
    with Agent("bob", folder.path) as bob:
        assert "fast waits for your approval" in Tools(bob).digest()
