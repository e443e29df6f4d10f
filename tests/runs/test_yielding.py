"""G01: a person at the workstation takes cores of a running run and gives them back; the trainings go on where they stood."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.agents.mcp import Tools
from swarm.errors import Refused
from swarm.log import run_is_alive
from swarm.rundir import RunFolder
from swarm.surroundings import cores
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def training(folder: RunFolder) -> bool:
    lease = sp.state(folder).tasks["fast/train"].lease
    return lease is not None and lease.worker is not None


def of_trainer(folder: RunFolder, tmp_path: Path) -> str:
    """Its state, as `swarm status` has it."""
    rows = json.loads(sp.swarm("status", str(folder.path), "--json", cwd=tmp_path).stdout)["workers"]
    return next((row["state"] for row in rows if row["worker"].startswith("trainer")), "")


def test_cores_are_left_to_others_at_a_boundary_and_come_back_and_the_training_goes_on(tmp_path: Path) -> None:
    folder = sp.start(sp.write_config(tmp_path, streams="  fast: {save_steps: 50}", steps=20_000))
    run, everything = str(folder.path), str(cores())
    sp.wait_for(lambda: sp.state(folder).streams["fast"].checkpoints, "a checkpoint", folder=folder)

    many = str(cores() + 1)
    refused = sp.swarm("yield", "--cores", many, "--run", run, cwd=tmp_path, check=5).stderr
    assert f"it trains on {everything} cores, and {many} are asked for; yield at most {everything}" in refused
    assert "it trains on no gpus" in sp.swarm("yield", "--gpus", "1", "--run", run, cwd=tmp_path, check=5).stderr
    wrong = sp.swarm("yield", "--run", run, cwd=tmp_path, check=2).stderr
    assert wrong == "swarm yield: takes --gpus N or --cores N; name one of them; 0 takes devices back\n"
    assert not any(isinstance(entry.event, ev.Yield) for entry in sp.entries(folder)), (
        "nothing was refused into the log"
    )

    done = sp.swarm("yield", "--cores", everything, "--why", "a game", "--as", "ada", "--run", run, "--json", cwd=tmp_path)  # fmt: skip
    assert json.loads(done.stdout)["kind"] == "yield"
    sp.wait_for(lambda: of_trainer(folder, tmp_path) == "yielded", "the trainer to leave", folder=folder)
    assert not any(name.startswith("trainer") for name in sp.worker_pids(folder))
    [given] = [entry.event for entry in sp.entries(folder) if isinstance(entry.event, ev.Drop)]
    saved = sp.state(folder).streams["fast"].checkpoints[-1].step
    assert not given.failed and not training(folder) and not sp.state(folder).streams["fast"].over

    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
    sp.wait_for(lambda: not run_is_alive(folder.log), "the coordinator's end", 30)
    with Agent("bob", folder.path) as bob, pytest.raises(Refused, match="no coordinator is at work"):
        bob.yield_devices("cores", 0)
    sp.swarm("resume", run, "--detach", cwd=tmp_path)
    sp.wait_for(lambda: of_trainer(folder, tmp_path) == "yielded", "the trainer to be left out", folder=folder)

    with Agent("ada", folder.path) as ada:
        answer = Tools(ada).steer("run", "yield", text="the game is over", changes="cores=0")
        assert answer.endswith(" yield cores=0")
    sp.wait_for(lambda: training(folder), "the training", folder=folder)
    sp.wait_for(lambda: sp.state(folder).streams["fast"].checkpoints[-1].step > saved, "a step more", folder=folder)
    steps = [saved.step for saved in sp.state(folder).streams["fast"].checkpoints]
    assert steps == sorted(set(steps)), "it went on from what it had saved"
    sp.swarm("stop", run, cwd=tmp_path)
    sp.wait_for_end(folder)
    text = sp.swarm("log", run, cwd=tmp_path).stdout
    assert "to others: a game" in text and "takes its cores back: the game is over" in text
