"""A worker that holds several leases, in real processes: killed, handed over, stopped, paused, adopted."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from swarm import config
from swarm import events as ev
from swarm.access.client import Client
from swarm.launch.layout import Layout, WorkerSpec
from swarm.log import run_is_alive
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


HEARTBEAT_SECONDS = 1.0
"""A worker's; the work on a task is counted from what the coordinator hears."""
COORDINATORS: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)
    while COORDINATORS:
        COORDINATORS.pop().wait(20)


def opened(
    tmp_path: Path, streams: str, *, slots: int = 3, extra: str = "", own_bytes: Mapping[str, int] | None = None
) -> RunFolder:
    """A run with one trainer that takes several streams at once, under a coordinator."""
    path = sp.write_config(tmp_path, streams=streams, steps=400, extra=extra)
    folder = RunFolder(tmp_path / "runs" / "group")
    folder.path.mkdir(parents=True)
    text = path.read_text() + "lease_seconds: 10\n"
    path.write_text(text.replace("cpu_streams: 2", "cpu_streams: auto") if own_bytes else text)
    folder.config.write_text(config.load(path, cwd=tmp_path).dump())
    clerk = WorkerSpec("clerk", ("prepare", "validate", "evaluate"), "cpu")
    trainer = WorkerSpec("trainer", ("train",), "cpu", slots=slots)
    Layout((clerk, trainer), own_bytes=own_bytes or {}).write(folder.layout)
    coordinate(folder)
    return folder


def coordinate(folder: RunFolder) -> None:
    with (folder.path / "coordinator.log").open("ab") as log:
        command = [sys.executable, "-m", "swarm.coordinator", str(folder.path)]
        COORDINATORS.append(subprocess.Popen(command, env=sp.environment(), stderr=log, start_new_session=True))
    sp.wait_for(lambda: folder.connect.exists() and run_is_alive(folder.log), "the coordinator", 60, folder)


def holder(folder: RunFolder) -> int:
    """The trainer's process."""
    return sp.living_trainers(folder)[0]


def held(folder: RunFolder) -> list[str]:
    return [task.ref for task in sp.state(folder).held_by("trainer")]


def ends(folder: RunFolder) -> list[ev.Expire]:
    return [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Expire)]


def test_a_crash_blames_only_a_task_that_was_held_alone_and_finished_ones_stay_finished(tmp_path: Path) -> None:
    folder = opened(tmp_path, "  a: {max_steps: 4}\n  b: {lora_r: 4}\n  c: {lora_r: 2}")

    def in_the_middle() -> bool:
        state = sp.state(folder)
        begun = bool(state.tasks["a/train"].done and state.streams["b"].checkpoints and state.streams["c"].checkpoints)
        leases = [state.tasks[ref].lease for ref in ("b/train", "c/train")]
        heard_of = all(lease is not None and time.time() - lease.began > 2.5 * HEARTBEAT_SECONDS for lease in leases)
        return begun and heard_of and held(folder) == ["b/train", "c/train"]

    sp.wait_for(in_the_middle, "one finished, two in the middle", folder=folder)
    os.kill(holder(folder), signal.SIGKILL)
    sp.wait_for(lambda: len(ends(folder)) == 2, "the ends of both leases", 60, folder)
    first, second = ends(folder)
    assert [(e.ref, e.failed, e.held) for e in (first, second)] == [("b/train", False, 2), ("c/train", False, 2)]
    assert "SIGKILL" in first.why and first.worked and second.worked

    def again() -> bool:
        lease = sp.state(folder).tasks["b/train"].lease
        return lease is not None and any(c.tok == lease.token for c in sp.state(folder).streams["b"].checkpoints)

    sp.wait_for(again, "the next attempt", folder=folder)
    assert held(folder) == ["b/train"], "one by one"
    os.kill(holder(folder), signal.SIGKILL)
    state = sp.wait_for_end(folder)

    assert [(e.ref, e.failed, e.held) for e in ends(folder)[2:]] == [("b/train", True, None)]
    assert state.end is not None and state.end.rc == 0
    claims = [e for e in sp.entries(folder) if isinstance(e.event, ev.Claim) and e.event.ref.endswith("/train")]
    assert sorted(e.event.ref for e in claims) == ["a/train", *["b/train"] * 3, *["c/train"] * 2]
    finished = next(e.seq for e in sp.entries(folder) if isinstance(e.event, ev.Trained) and e.event.ref == "b/train")
    assert claims[-1].event.ref == "c/train" and claims[-1].seq > finished
    for name in "bc":
        steps, made = [c.step for c in state.streams[name].checkpoints], list(range(20, 401, 20))
        assert steps == sorted(set(steps)), "no checkpoint is made twice"
        assert set(steps) <= set(made) and len(made) - len(steps) <= 2, (
            "a kill can come between a checkpoint and its entry"
        )


def test_one_is_handed_over_one_paused_one_stopped_and_the_next_coordinator_adopts_them_all(tmp_path: Path) -> None:
    folder = opened(
        tmp_path, "  a: {max_steps: 100000}\n  b: {lora_r: 2}\n  c: {lora_r: 4}", extra="  save_total_limit: 1"
    )
    both = ["a/train", "b/train", "c/train"]
    sp.wait_for(
        lambda: held(folder) == both and sp.state(folder).streams["a"].checkpoints, "three leases", folder=folder
    )
    lease = sp.state(folder).tasks["b/train"].lease
    assert lease is not None
    with Client(folder) as door:
        new = door.append(ev.Hand(ref="b/train", tok=lease.token, to="ada", ttl=600))
        door.append(ev.Pause(ref="c"))
    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
    sp.wait_for(lambda: not run_is_alive(folder.log), "no coordinator", 20, folder)
    pid = holder(folder)
    coordinate(folder)
    sp.wait_for(lambda: any("is adopted" in e.event.body for e in sp.entries(folder)), "adoption", folder=folder)
    with Client(folder) as door:
        door.append(ev.Stop(ref="a"))
    sp.wait_for(lambda: sp.state(folder).tasks["b/train"].done, "the training that waited", folder=folder)
    state = sp.state(folder)
    assert held(folder) == ["c/train"] and holder(folder) == pid
    assert state.streams["b"].trained is not None and state.streams["b"].trained.tok == new
    assert state.streams["c"].trained is None and state.tasks["a/train"].lease is None
    with Client(folder) as door:
        door.append(ev.Resume(ref="c"))
    state = sp.wait_for_end(folder)
    assert state.streams["c"].trained is not None and state.end is not None and state.end.rc == 0
    assert "expire" not in {e.event.kind for e in sp.entries(folder)}
    refused = {(e.event.ref, e.event.tok) for e in sp.entries(folder) if isinstance(e.event, ev.Refuse)}
    assert refused <= {("b/train", lease.token)}, "what was on its way under the token before the hand-over"
    assert [e.event.failed for e in sp.entries(folder) if isinstance(e.event, ev.Drop)] == [False]


def test_a_limit_of_minutes_counts_what_a_killed_attempt_trained_after_its_last_checkpoint(tmp_path: Path) -> None:
    streams = "  only: {max_minutes: 0.25, max_steps: 1000000, save_steps: 1000000}"
    folder = opened(tmp_path, streams, slots=1)
    sp.wait_for(lambda: seconds_of(folder).get(1, 0.0) > 8, "8 seconds of training", folder=folder)
    os.kill(holder(folder), signal.SIGKILL)
    state = sp.wait_for_end(folder)
    assert state.streams["only"].trained is not None and state.streams["only"].trained.why == "max_minutes"
    assert seconds_of(folder)[2] < 9, "of 15 seconds, 8 were spent before"


def seconds_of(folder: RunFolder) -> dict[int, float]:
    """Seconds from the first to the last figures, by attempt."""
    if not folder.metrics.exists():
        return {}
    with sqlite3.connect(folder.metrics) as db:
        found = db.execute("SELECT token, max(time) - min(time) FROM metrics GROUP BY token ORDER BY token").fetchall()
    return {attempt: seconds for attempt, (_, seconds) in enumerate(found, start=1)}


def test_a_coordinator_that_is_frozen_blames_neither_its_workers_nor_agents_and_says_so(tmp_path: Path) -> None:
    folder = opened(tmp_path, "  a: {lora_r: 2}\n  b: {lora_r: 4}", extra="  max_minutes: 5\n")
    with Client(folder, "ada") as ada:
        ada.append(ev.Task(ref="look"))
        sp.wait_for(lambda: held(folder) == ["a/train", "b/train"], "two leases", folder=folder)
        pid = sp.coordinator_pid(folder)
        token = ada.append(ev.Claim(ref="look", ttl=10))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(16)  # more than lease_seconds, and than the ttl
        os.kill(pid, signal.SIGCONT)
        ada.append(ev.Renew(ref="look", tok=token, ttl=600), timeout_seconds=30)
    state = sp.wait_for_end(folder)
    assert state.end is not None and state.end.rc == 0
    assert ends(folder) == []
    [extended] = [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Extend)]
    assert 14 < extended.seconds < 30 and "stood still" in extended.why


def test_streams_that_wait_and_join_go_by_what_the_group_was_measured_to_take(tmp_path: Path) -> None:
    endless = "{max_steps: 100000, save_steps: 50000}"
    predicted = dict.fromkeys("ab", 8 << 30)  # of rows as long as `sequence_len`, which these are not
    folder = opened(tmp_path, f"  a: {endless}\n  b: {endless}", slots=1, own_bytes=predicted)
    sp.wait_for(lambda: held(folder) == ["a/train", "b/train"], "the second beside the first", folder=folder)

    def both() -> dict[str, int] | None:
        rows = json.loads(sp.swarm("status", str(folder.path), "--json", cwd=tmp_path).stdout)["workers"]
        return next((row for row in rows if row["worker"] == "trainer" and row["own_bytes"]), None)

    row = sp.wait_for(both, "what both take", folder=folder)
    assert row["predicted_own_bytes"] == 2 * (8 << 30) and 0 < row["own_bytes"] < 1 << 30
    sp.swarm("add", "c", "--like", "a", "lora_r=2", "--run", str(folder.path), cwd=tmp_path)
    sp.wait_for(lambda: held(folder) == ["a/train", "b/train", "c/train"], "the third", folder=folder)
    with Client(folder) as door:
        door.append(ev.Stop(ref="run"))
    sp.wait_for_end(folder)
