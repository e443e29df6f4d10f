"""G01 on a GPU: who yields it has it to himself until it is given back, and the training goes on where it stood."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.timeout(420),
]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def trainer(folder: RunFolder, tmp_path: Path) -> dict[str, str]:
    """Its row, as `swarm status` has it."""
    rows = json.loads(sp.swarm("status", str(folder.path), "--json", cwd=tmp_path).stdout)["workers"]
    return next((row for row in rows if row["worker"].startswith("trainer")), {"state": ""})


def test_a_gpu_is_left_to_others_at_a_boundary_and_the_training_goes_on_when_it_is_given_back(tmp_path: Path) -> None:
    folder = sp.start(sp.write_config(tmp_path, streams="  fast: {save_steps: 50}", steps=20_000))
    run = str(folder.path)
    sp.wait_for(lambda: sp.state(folder).streams["fast"].checkpoints, "a checkpoint", folder=folder)

    sp.swarm("yield", "--gpus", "1", "--why", "a game", "--as", "ada", "--run", run, cwd=tmp_path)
    sp.wait_for(lambda: trainer(folder, tmp_path)["state"] == "yielded", "the trainer to leave", folder=folder)
    assert not any(name.startswith("trainer") for name in sp.worker_pids(folder))
    saved = sp.state(folder).streams["fast"].checkpoints[-1].step

    sp.swarm("yield", "--gpus", "0", "--why", "the game is over", "--as", "ada", "--run", run, cwd=tmp_path)
    sp.wait_for(lambda: sp.state(folder).streams["fast"].checkpoints[-1].step > saved, "a step more", folder=folder)
    steps = [checkpoint.step for checkpoint in sp.state(folder).streams["fast"].checkpoints]
    assert steps == sorted(set(steps)), "it went on from what it had saved"
    sp.swarm("stop", run, cwd=tmp_path)
    sp.wait_for_end(folder)
