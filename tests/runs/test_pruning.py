"""Issue 21: one of Optuna's pruners in a real run: a bad trial stops, and after a killed coordinator the log alone leads to the same decisions."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.policy import pruning
from swarm.settings import Pruner
from tests.runs import swarm_process as sp
from trainer.pruning import pruned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
LONG = 4000
"""Steps of the bad trials: nobody is so quick that they end before the pruner's answer."""
STREAMS = f"""  good: {{learning_rate: 1e-2, max_steps: 16}}
  bad: {{learning_rate: 1e-6, max_steps: {LONG}}}
  worse: {{learning_rate: 1e-7, max_steps: {LONG}}}"""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_a_bad_trial_stops_and_a_coordinator_that_was_killed_comes_to_the_same_decisions(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=STREAMS, extra="  eval_steps: 8\n  lr_scheduler: constant", rows=24)
    text = config.read_text().replace("save_steps: 2", "save_steps: 8").replace("cpu_streams: 2", "cpu_streams: 1")
    config.write_text(f"{text}pruner: {{type: median, n_startup_trials: 1}}\n")
    folder = sp.start(config)
    sp.wait_for(lambda: sp.state(folder).streams["bad"].checkpoints, "a measurement of bad", folder=folder)
    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)  # while the pruner is asked, or has just answered
    sp.swarm("resume", str(folder.path), "--detach", cwd=tmp_path)
    state = sp.wait_for_end(folder)
    assert state.end is not None and state.end.rc == 0
    stops = {e.event.ref: e for e in sp.entries(folder) if isinstance(e.event, ev.Stop)}
    assert stops.keys() == {"bad", "worse"}
    for entry in stops.values():
        assert entry.author == "coordinator"
        assert re.match(r"pruner median at step 8: held-out loss [0-9.]+; the lowest there so far is [0-9.]+", entry.event.why)  # fmt: skip
    assert state.promoted is not None and state.promoted.ref == "good"

    asked = pruning.request(state, sp.settings(folder))
    again = pruned(Pruner.model_validate(asked["pruner"]), asked["course"])
    assert {name: state.course[at].step for name, at in again.items()} == {"bad": 8, "worse": 8}
