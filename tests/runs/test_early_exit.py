"""Issue 21: early exit in a real run: losers stop at the rung and give their place, the reason stands in the log, and a loser can be revived."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RATES = {"slow": 1e-5, "slower": 1e-6, "good": 1e-2, "fair": 1e-3}


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_half_of_the_streams_stop_at_the_first_rung_and_the_better_ones_go_on(tmp_path: Path) -> None:
    streams = "\n".join(f"  {name}: {{learning_rate: {rate}}}" for name, rate in RATES.items())
    extra = "  eval_steps: 4\n  lr_scheduler: constant"
    config = sp.write_config(tmp_path, streams=streams, extra=extra, steps=24, rows=24)
    text = config.read_text().replace("save_steps: 2", "save_steps: 4").replace("cpu_streams: 2", "cpu_streams: 4")
    config.write_text(f"{text}halving: {{first_step: 4, reduction: 2}}\n")
    sp.swarm("run", config.name, cwd=tmp_path)
    [path] = (tmp_path / "runs").iterdir()
    folder = sp.RunFolder(path)
    state = sp.state(folder)
    assert state.end is not None and state.end.rc == 0
    at_first_rung = [
        e for e in sp.entries(folder) if isinstance(e.event, ev.Stop) and "at step 4:" in (e.event.why or "")
    ]
    assert {entry.event.ref for entry in at_first_rung} == {"slow", "slower"}
    assert {entry.author for entry in at_first_rung} == {"coordinator"}
    assert "the best 2 of 4 have" in str(at_first_rung[0].event.why)
    for name in ("slow", "slower"):
        assert state.streams[name].wish == "stop" and state.streams[name].trained is None
    assert state.promoted is not None and state.promoted.ref in {"good", "fair"}

    sp.swarm("resume", "slow", cwd=tmp_path)
    state = sp.wait_for_end(folder)
    trained = state.streams["slow"].trained
    assert trained is not None and trained.step == 24, "revived from its checkpoint, and not stopped again"
    assert state.streams["slower"].trained is None
