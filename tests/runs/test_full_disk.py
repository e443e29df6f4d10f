"""A disk that is full while the rows are prepared and while the winner is promoted: a small file system of its own, filled at that moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.log import run_is_alive, verify
from swarm.weights import adapter_sha256
from tests.runs import swarm_process as sp
from tests.runs.small_disk import fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as place:
        yield place


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_full_disk_stops_preparation_and_promotion_with_the_reason_and_both_go_on_when_there_is_room(
    disk: Path,
) -> None:
    config = sp.write_config(disk, streams="  only: {lora_r: 8}", steps=4, rows=1500)
    config.write_text(config.read_text() + "promotion: {approvers: [bob], must_beat: nothing}\n")
    folder = sp.start(config)
    ballast = fill(disk)
    failed = sp.wait_for_end(folder).streams["only"].failed
    assert failed.startswith("prepare: ") and "no space; free some, then `swarm resume`" in failed
    assert failed.split(": ")[1] in sp.swarm("status", cwd=disk).stdout

    ballast.unlink()
    sp.swarm("resume", "--detach", cwd=disk)
    sp.wait_for(lambda: "waits for bob" in sp.swarm("status", cwd=disk).stdout, "the wait for bob", folder=folder)
    sp.swarm("invite", "bob", cwd=disk)
    ballast = fill(disk)
    sp.swarm("approve", "only", "--as", "bob", cwd=disk)
    time.sleep(6)
    state = sp.state(folder)
    assert (state.promoted, state.end, state.streams["only"].failed) == (None, None, "")
    assert run_is_alive(folder.log)
    notes = [e.event.body for e in sp.entries(folder) if isinstance(e.event, ev.Post) and "no space" in e.event.body]
    assert notes == ["no space to publish an adapter: free some, it is tried again until there is room"]

    ballast.unlink()
    state = sp.wait_for_end(folder)
    assert state.promoted is not None and state.end is not None and state.end.rc == 0
    assert adapter_sha256(folder.promoted) == state.promoted.sha256
    assert verify(folder.log) == [] and not list(folder.path.glob(".promoted*"))
