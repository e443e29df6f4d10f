"""Issue 21: early exit in a real run: losers stop at the rung and give their place, the reason stands in the log, and a loser can be revived."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STEPS = 120
STREAMS = {
    "slow": f"learning_rate: 1e-5, max_steps: {STEPS}", "slower": f"learning_rate: 1e-6, max_steps: {STEPS}",
    "good": "learning_rate: 1e-2", "fair": "learning_rate: 1e-3",
}  # fmt: skip
"""The losers are long, so that they train still when the others come to a rung."""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_the_worse_half_of_the_streams_stops_at_a_rung_and_a_better_one_is_promoted(tmp_path: Path) -> None:
    streams = "\n".join(f"  {name}: {{{own}}}" for name, own in STREAMS.items())
    extra = "  eval_steps: 8\n  lr_scheduler: constant"
    config = sp.write_config(tmp_path, streams=streams, extra=extra, steps=24, rows=24)
    text = config.read_text().replace("save_steps: 2", "save_steps: 8").replace("cpu_streams: 2", "cpu_streams: 4")
    config.write_text(f"{text}halving: {{first_step: 8, reduction: 2}}\n")
    sp.swarm("run", config.name, cwd=tmp_path)
    [path] = (tmp_path / "runs").iterdir()
    folder = sp.RunFolder(path)
    state = sp.state(folder)
    assert state.end is not None and state.end.rc == 0
    stops = {e.event.ref: e for e in sp.entries(folder) if isinstance(e.event, ev.Stop)}
    assert {"slow", "slower"} <= stops.keys() < {"slow", "slower", "good", "fair"}
    for entry in stops.values():  # at which rung depends on how fast the others come
        assert entry.author == "coordinator"
        assert re.match(
            r"halving at step (4|8|16): held-out loss [0-9.]+; the best [12] of [234] have", entry.event.why
        )
    for name in ("slow", "slower"):
        assert state.streams[name].wish == "stop" and state.streams[name].trained is None
    assert state.promoted is not None and state.promoted.ref in {"good", "fair"}

    refused = sp.swarm("resume", cwd=tmp_path, check=2)
    assert re.search(r"has finished and nothing failed; `swarm resume [a-z]+` revives one", refused.stderr)
    sp.swarm("resume", "slow", cwd=tmp_path)
    state = sp.wait_for_end(folder)
    trained = state.streams["slow"].trained
    assert trained is not None and trained.step == STEPS, "revived from its checkpoint, and not stopped again"
    assert state.streams["slower"].trained is None
