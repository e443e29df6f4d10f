"""Streams join a running run, in real processes: clones in their rank and others, one from step 0, a killed coordinator, what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.errors import Refused, UserErrors
from swarm.log import run_is_alive
from swarm.rundir import RunFolder
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def running(tmp_path: Path) -> RunFolder:
    """A run whose one stream has saved a checkpoint and trains on for long."""
    folder = sp.start(sp.write_config(tmp_path, streams="  fast: {save_steps: 25}", steps=4000))
    sp.wait_for(lambda: sp.state(folder).streams["fast"].checkpoints, "a checkpoint", folder=folder)
    return folder


def begun(folder: RunFolder, stream: str) -> str:
    """What the log says of how a clone began."""
    bodies = [e.event.body for e in sp.entries(folder) if isinstance(e.event, ev.Post) and e.event.stream == stream]
    return next((body for body in bodies if body.startswith("begins with ")), "")


def test_streams_join_a_running_run_and_outlive_its_coordinator(tmp_path: Path) -> None:
    folder = running(tmp_path)
    run = str(folder.path)
    done = sp.swarm("clone", "fast", "slow", "learning_rate=1e-4", "max_steps=4", "--why", "it overshoots", "--as", "ada", "--run", run, "--json", cwd=tmp_path)  # fmt: skip
    assert json.loads(done.stdout)["kind"] == "add"
    sp.swarm("clone", "fast", "wide", "lora_r=12", "max_steps=4", "--run", run, cwd=tmp_path)
    with Agent("bob", folder.path) as bob:
        seq = bob.clone("fast", "narrow", {"lora_r": 3, "max_steps": 4}, why="smaller", idem="once")
        assert bob.clone("fast", "narrow", {"lora_r": 3, "max_steps": 4}, why="smaller", idem="once") == seq
        bob.add("fresh", "fast", ["seed=3", "max_steps=4"])

    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
    sp.wait_for(lambda: not run_is_alive(folder.log), "the coordinator's end", 30)
    refused = sp.swarm("add", "late", "--like", "fast", "--run", run, cwd=tmp_path, check=5)
    assert refused.stderr == "late: no coordinator is at work, and streams join a running run; `swarm resume` first\n"
    sp.swarm("resume", run, "--detach", cwd=tmp_path)
    sp.swarm("stop", run, "--stream", "fast", cwd=tmp_path)
    state = sp.wait_for_end(folder)

    added = {name: stream.added for name, stream in state.streams.items() if stream.added}
    assert list(added) == ["slow", "wide", "narrow", "fresh"] and all(state.streams[name].trained for name in added)
    slow, fresh = added["slow"], added["fresh"]
    assert slow is not None and fresh is not None
    assert (slow.like, slow.changes, slow.why) == ("fast", "learning_rate=0.0001 max_steps=4", "it overshoots")
    assert (fresh.warm, fresh.path, fresh.changes) == (None, None, "max_steps=4 seed=3")
    assert re.fullmatch(r"begins with the weights of fast at step \d+, with its moments", begun(folder, "slow"))
    assert begun(folder, "wide").endswith("with its moments; rank 8 -> 12")
    assert re.search(r"rank 8 -> 3, \d+\.\d\d% of its update is lost", begun(folder, "narrow"))
    assert begun(folder, "fresh") == ""
    first = {name: state.streams[name].trained.figures["first_loss"] for name in added}  # type: ignore[union-attr]
    assert max(first["slow"], first["wide"]) < first["fresh"], "clones begin where their source stood"

    rows = json.loads(sp.swarm("lineage", "slow", "--run", run, "--json", cwd=tmp_path).stdout)["adapters"]
    assert rows[0]["parents"]["clone_of"] == {"stream": "fast", "step": slow.step, "sha256": slow.sha256}
    assert rows[0]["settings"]["learning_rate"] == 1e-4 and rows[0]["config"] == "ok"
    shown = json.loads(sp.swarm("status", run, "--json", cwd=tmp_path).stdout)["streams"]
    assert [row["stream"] for row in shown] == ["fast", "slow", "wide", "narrow", "fresh"]
    before = json.loads(sp.swarm("replay", run, "--to", str(seq - 1), "--json", cwd=tmp_path).stdout)["streams"]
    assert "narrow" not in {row["stream"] for row in before}
    planned = json.loads(sp.swarm("plan", run, "--json", cwd=tmp_path).stdout)["streams"]
    assert [(row["stream"], row["adapter"]) for row in planned][2:4] == [("wide", "lora r12"), ("narrow", "lora r3")]


def test_what_a_running_run_cannot_take_is_refused_with_the_reason_and_changes_nothing(tmp_path: Path) -> None:
    folder = running(tmp_path)
    run = str(folder.path)

    def refused(*words: str, status: int) -> str:
        return sp.swarm(*words, "--run", run, cwd=tmp_path, check=status).stderr

    fixed = refused("clone", "fast", "new", "base_model=other", "adapter=qlora", "trust_remote_code=true", status=2)
    assert (
        "new.base_model: cannot be changed: all streams of a running run train on the bases that it began with;"
        in fixed
    )
    assert "new.adapter: cannot be changed: the base is held as it is, and qlora wants it in nf4;" in fixed
    assert fixed.endswith("3 problems; nothing was added\n") and "no code is brought into a running run" in fixed
    assert "learnig_rate: unknown setting; did you mean `learning_rate`?" in refused("clone", "fast", "new", "learnig_rate=1", status=2)  # fmt: skip
    assert refused("add", "new", "--like", "fats", status=2) == "fats: there is no such stream; did you mean `fast`?\n"
    assert "there is a stream of that name" in refused("clone", "fast", "fast", status=5)
    assert "is not a valid name" in refused("clone", "fast", "No Name", status=2)
    dora = refused("clone", "fast", "new", "use_dora=true", "lora_r=4", status=5)
    assert (
        "new.use_dora: gives the adapter other tensors than that of fast" in dora
        and "1 problem; nothing was added" in dora
    )
    fixed_rows = refused("clone", "fast", "new", "init_lora_weights=pissa", status=5)
    assert "new: holds rows that are not trained (start_adapter, init_lora_weights)" in fixed_rows
    assert "no file matches" in refused("add", "new", "--like", "fast", "datasets.0.path=gone.jsonl", status=2)
    targets = refused("add", "new", "--like", "fast", "lora_target_modules=[nowhere]", status=5)
    assert "new.lora_target_modules: nowhere matches no layer of the base" in targets
    with Agent("ada", folder.path) as ada:
        with pytest.raises(UserErrors, match="unknown setting"):
            ada.clone("fast", "new", {"nothing": 1})
        with pytest.raises(Refused, match="there is a stream of that name"):
            ada.add("fast", "fast")
    assert not any(isinstance(entry.event, ev.Add) for entry in sp.entries(folder))
    assert not folder.stream("new").exists(), "no checkpoint is kept for a stream that did not join"


def test_one_stream_of_several_is_paused_goes_on_and_is_stopped_alone(tmp_path: Path) -> None:
    folder = sp.start(sp.write_config(tmp_path, streams="  one: {}\n  two: {}", steps=4000))
    with Watcher.attach(folder.path) as watcher:

        def seen() -> dict[str, tuple[str, int]]:
            return {row.name: (row.state, row.step) for row in watcher.snapshot().streams}

        sp.wait_for(lambda: all(step > 2 for _, step in seen().values()), "steps of both", folder=folder)
        sp.swarm("pause", "one", "--as", "ada", cwd=tmp_path)
        sp.wait_for(lambda: seen()["one"][0] == "paused", "the pause of one", folder=folder)
        before = seen()
        sp.wait_for(lambda: seen()["two"][1] > before["two"][1] + 3, "steps of the other", folder=folder)
        assert seen()["one"] == before["one"] and seen()["two"][0] == "train"
        sp.swarm("resume", "one", cwd=tmp_path)
        sp.wait_for(lambda: seen()["one"][1] > before["one"][1], "it goes on", folder=folder)
        sp.swarm("stop", "one", cwd=tmp_path)
        sp.wait_for(lambda: seen()["one"][0] == "stopped", "the stop of one", folder=folder)
        assert seen()["two"][0] == "train"
