"""The long forms of what harms a run from outside, for `make torture`: a flood from every role, and freezes of the coordinator.

All is on this machine, over ipc, and ends by itself.  Hostile folders are in test_hostile_folders.py, kills in tests/bus and tests/swarm/log.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from tests.benchmarks import bench_flood
from tests.runs import swarm_process as sp

pytestmark = pytest.mark.skipif(os.environ.get("TORTURE") != "1", reason="`make torture` runs it")
FLOOD_SECONDS, FLOODERS_OF_A_ROLE = float(os.environ.get("TORTURE_SECONDS", "60")), 2
FREEZES = int(os.environ.get("TORTURE_FREEZES", "6"))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_a_flood_from_every_role_costs_no_lease_and_the_owner_is_answered(tmp_path: Path) -> None:
    figures = bench_flood.measure(tmp_path, FLOOD_SECONDS, FLOODERS_OF_A_ROLE)
    print(figures)
    assert figures["leases_lost"] == figures["planted_rows"] == 0
    assert figures["flood_median_s"] < 1 and figures["flood_max_s"] < 10
    assert figures["memory_mib"] < 600


def test_a_coordinator_that_is_frozen_again_and_again_fails_no_stream(tmp_path: Path) -> None:
    seed = int(os.environ.get("TORTURE_SEED", "0"))
    rng = random.Random(seed)
    config = sp.write_config(
        tmp_path, streams="  a: {lora_r: 2}\n  b: {lora_r: 4}", steps=4000, extra=f"  max_minutes: {FREEZES * 0.7 + 1}"
    )
    config.write_text(config.read_text().replace("name: test\n", "name: test\nlease_seconds: 12\nretries: 1\n"))
    folder = sp.start(config)
    sp.wait_for(lambda: len(sp.state(folder).held()) == 2, "two leases", folder=folder)
    for _ in range(FREEZES):
        time.sleep(rng.uniform(2, 8))
        if sp.state(folder).end:
            break
        pid = sp.coordinator_pid(folder)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(rng.uniform(5, 25))
        os.kill(pid, signal.SIGCONT)
    state = sp.wait_for_end(folder)
    ends = [entry.event for entry in sp.entries(folder) if isinstance(entry.event, ev.Expire)]
    assert not [end for end in ends if end.failed], (seed, ends)
    assert state.end is not None and state.end.rc == 0, seed
    assert all(stream.adapter for stream in state.streams.values())
