"""`swarm run` without a terminal, as a script or an agent's tool starts it: ending it is not the end of the run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_sigterm_to_what_started_the_run_detaches_and_says_how_to_go_on(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=3000, extra="  save_total_limit: 1")
    done = sp.swarm("run", config.name, "defaults.save_steps=5", "--detach", "--json", cwd=tmp_path)
    begun = json.loads(done.stdout)
    folder = sp.RunFolder(Path(begun["path"]))
    assert begun["run"] == folder.name
    assert f"detached; {folder.name} goes on\n  swarm watch {folder.name} " in done.stderr
    sp.wait_for(lambda: sp.state(folder).streams["only"].checkpoints, "a checkpoint", folder=folder)
    sp.swarm("stop", cwd=tmp_path)

    front = subprocess.Popen(
        [sys.executable, "-m", "swarm.cli", "resume", folder.name], cwd=tmp_path, env=sp.environment(),
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    sp.wait_for(lambda: sp.state(folder).tasks["only/train"].lease, "training", folder=folder)
    front.send_signal(signal.SIGTERM)
    _, said = front.communicate(timeout=60)
    assert front.returncode == 0
    assert f"detached; {folder.name} goes on\n" in said and f"  swarm stop {folder.name} " in said
    saved = len(sp.state(folder).streams["only"].checkpoints)
    sp.wait_for(lambda: len(sp.state(folder).streams["only"].checkpoints) > saved, "a step after it", folder=folder)
    assert sp.state(folder).end is None and not sp.state(folder).stopped
