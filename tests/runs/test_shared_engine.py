"""Four streams in one process, in a real run: paused, stopped, killed, and in the end as if nothing had happened to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.access.client import Client
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

STREAMS = """\
  plain: {lora_r: 4}
  dora: {use_dora: true, lora_dropout: 0.1, optimizer: sgd, learning_rate: 0.05}
  wide: {lora_r: 16, lora_dropout: 0.2, gradient_accumulation_steps: 2}
"""
ENDLESS = "  endless: {max_steps: 100000, save_steps: 50000}\n"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def started(tmp_path: Path, streams: str) -> RunFolder:
    config = sp.write_config(tmp_path, streams=streams, steps=300, extra="  exact: true")
    return sp.start(config, "placement.cpu_streams=4")


def adapters(folder: RunFolder) -> dict[str, bytes]:
    found = folder.path.glob("streams/*/adapter/adapter_model.safetensors")
    return {path.parts[-3]: path.read_bytes() for path in found}


def test_a_group_that_is_paused_stopped_and_killed_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    folder = started(tmp_path, STREAMS + ENDLESS)

    def held() -> list[str]:
        return [task.ref.partition("/")[0] for task in sp.state(folder).held_by("trainer-1")]

    sp.wait_for(lambda: len(held()) == 4 and sp.state(folder).streams["plain"].checkpoints, "four", folder=folder)
    with Client(folder) as door:
        door.append(ev.Pause(ref="plain"))
        door.append(ev.Stop(ref="endless"))
    sp.wait_for(lambda: held() == ["plain", "dora", "wide"], "the end of one", folder=folder)
    sp.wait_for(
        lambda: len(sp.state(folder).streams["wide"].checkpoints) > 1, "more steps of the others", folder=folder
    )
    os.kill(sp.worker_pids(folder)["trainer-1"], signal.SIGKILL)
    ends = sp.wait_for(
        lambda: [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Expire)], "ends", 60, folder
    )
    assert [(end.ref, end.failed, end.held) for end in ends] == [
        (f"{name}/train", False, 3) for name in ("plain", "dora", "wide")
    ]
    with Client(folder) as door:
        door.append(ev.Resume(ref="plain"))
    sp.wait_for(lambda: {"plain", "dora", "wide"} <= adapters(folder).keys(), "three adapters", folder=folder)

    undisturbed = started(tmp_path, STREAMS)
    assert (end := sp.wait_for_end(undisturbed).end) is not None and end.rc == 0
    assert adapters(folder) == adapters(undisturbed)
