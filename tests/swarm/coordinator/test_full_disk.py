"""A coordinator whose disk is full while it has to start a worker again, or to publish an adapter."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.launch.layout import Layout, WorkerSpec
from swarm.launch.local import living, process_started
from swarm.log import LogWriter
from swarm.rundir import RunFolder
from swarm.weights import ADAPTER, ADAPTER_CONFIG, adapter_sha256
from tests.runs import swarm_process as sp
from tests.runs.small_disk import fill, small_disk
from tests.swarm.places import configure, coordinator, opened, wait_for
from tests.swarm.story import Story


def pid_of(folder: RunFolder) -> int | None:
    """The pid of the clerk in the list on disk; None while it stands in none.  Never 0, which `os.kill` takes for a whole group."""
    known = json.loads(folder.processes.read_text()) if folder.processes.exists() else {}
    return int(known["clerk"]["pid"]) if "clerk" in known else None


def living_clerk(folder: RunFolder) -> int | None:
    pid = pid_of(folder)
    return pid if pid and process_started(pid) else None


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process as Linux sets them")
def test_a_full_disk_ends_no_coordinator_and_who_lives_is_noted_when_there_is_room(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    configure(tmp_path, folder)
    Layout(workers=(WorkerSpec("clerk", ("prepare",), "cpu"),)).write(folder.layout)
    with coordinator(folder) as process:
        first = sp.wait_for(lambda: living_clerk(folder), "a clerk")
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))  # none of its files can grow
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: started_by(process.pid) - {first})
        time.sleep(1)  # some more looks at the clock
        assert process.poll() is None, (folder.path / "coordinator.log").read_text()
        assert pid_of(folder) == first and living(folder) == {}
        assert not list(folder.path.glob(".workers.json*"))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
        second = sp.wait_for(
            lambda: pid if (pid := pid_of(folder)) in started_by(process.pid) else None, "the next clerk"
        )
        os.kill(second, signal.SIGKILL)


def test_an_adapter_that_has_no_room_is_noted_once_and_published_when_there_is(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        folder = opened(disk)
        configure(disk, folder)
        made = folder.path / "streams/wide/t5/checkpoint-9"
        made.mkdir(parents=True)
        (made / ADAPTER_CONFIG).write_text("{}")
        (made / ADAPTER).write_bytes(bytes(1 << 20))
        trained_to(folder, adapter_sha256(made))
        with coordinator(folder), Agent("ada", folder.path) as ada:
            token = ada.claim("wide/validate").token
            ballast = fill(disk)
            ada.judge("wide/validate", token, "SUCCESS", figures={"eval_loss": 0.5, "base_eval_loss": 2.0})
            sp.wait_for(lambda: notes(folder), "the note")
            time.sleep(3)  # it is tried again meanwhile
            assert notes(folder) == ["no space to publish an adapter: free some, it is tried again until there is room"]
            assert sp.state(folder).streams["wide"].failed == ""
            ballast.unlink()
            sp.wait_for(lambda: sp.state(folder).streams["wide"].adapter, "the adapter")


def trained_to(folder: RunFolder, sha256: str) -> None:
    """The log of a stream whose checkpoint 9 waits to be validated."""
    story = Story("wide")
    story.prepared("wide")
    token = story.claim("wide/train", "trainer-1")
    facts = {"tok": token, "path": f"streams/wide/t{token}/checkpoint-9", "sha256": sha256}
    story.say("trainer-1", ev.Trained(ref="wide/train", step=9, trainable=1, **facts))  # type: ignore[arg-type]
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])


def notes(folder: RunFolder) -> list[str]:
    return [e.event.body for e in sp.entries(folder) if isinstance(e.event, ev.Post) and "no space" in e.event.body]


def started_by(pid: int) -> set[int]:
    """Its living children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found if process_started(int(child))}
