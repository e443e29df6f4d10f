"""A coordinator whose disk is full while it has to start a worker again."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from swarm.launch.layout import Layout, WorkerSpec
from swarm.launch.local import living, process_started
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, coordinator, opened, wait_for


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


def started_by(pid: int) -> set[int]:
    """Its living children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found if process_started(int(child))}
