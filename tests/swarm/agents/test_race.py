"""Agents of all kinds race over tasks through one coordinator while some of them are killed.

TORTURE=1: 20 agents (10 on the command line, 5 in Python, 5 over MCP) and 100 tasks; else a few of each.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("mcp")

from swarm import Agent
from swarm import events as ev
from swarm.log import verify
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, coordinator, entries, opened, state

TORTURE = bool(os.environ.get("TORTURE"))
CREW = {"cli": 10, "python": 5, "mcp": 5} if TORTURE else {"cli": 2, "python": 2, "mcp": 1}
TASKS = 100 if TORTURE else 24
KILLS = 30 if TORTURE else 4
TTL_SECONDS = 20.0 if TORTURE else 8.0
NOTICE_SECONDS = 3.0
"""Beyond the lease: a busy machine looks at it late."""


class Racers:
    """The processes, each in a group of its own; for one that is killed another comes, under another name."""

    def __init__(self, folder: RunFolder, draws: random.Random) -> None:
        self.folder, self.draws, self.numbers = folder, draws, itertools.count()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for kind, count in CREW.items():
            for _ in range(count):
                self.add(kind)

    def add(self, kind: str) -> None:
        name = f"{kind}-{next(self.numbers)}"
        self.processes[name] = self.start(kind, name)

    def start(self, kind: str, name: str) -> subprocess.Popen[bytes]:
        words = [kind, name, str(self.folder.path), str(self.draws.random()), str(TTL_SECONDS)]
        command = [sys.executable, "-m", "tests.swarm.agents.racer", *words]
        with (self.folder.path / f"{name}.out").open("ab") as out:
            return subprocess.Popen(command, env=sp.environment(), stdout=out, stderr=out, start_new_session=True)

    def kill_one(self, holders: set[str]) -> None:
        """Somebody who holds a task, if anybody does."""
        name = self.draws.choice(sorted(holders & set(self.processes)) or sorted(self.processes))
        self.end(self.processes.pop(name))
        self.add(name.partition("-")[0])

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def talk(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-800:]}" for path in self.folder.path.glob("*.out"))


@pytest.mark.timeout(1200 if TORTURE else 180)
def test_every_task_is_done_once_whoever_races_and_whoever_dies(tmp_path: Path) -> None:
    folder, draws = opened(tmp_path), random.Random(6)
    configure(tmp_path, folder)
    with coordinator(folder), Agent("owner", folder.path) as owner:
        for number in range(TASKS):
            owner.task(f"race/t{number}")
        racers = Racers(folder, draws)
        try:
            for _ in range(KILLS):
                time.sleep(draws.uniform(0.5, 2.0))
                racers.kill_one({task.lease.by for task in owner.state.held() if task.lease})
            deadline = time.monotonic() + (900 if TORTURE else 120)
            while not all(task.done for ref, task in owner.state.tasks.items() if ref.startswith("race/")):
                assert time.monotonic() < deadline, racers.talk()
                time.sleep(0.1)
            for process in racers.processes.values():
                assert process.wait(timeout=60) == 0, racers.talk()
        finally:
            for process in racers.processes.values():
                racers.end(process)
    judge(folder)


def judge(folder: RunFolder) -> None:
    told = [entry for entry in entries(folder) if entry.event.ref.startswith("race/")]
    done = Counter(entry.event.ref for entry in told if isinstance(entry.event, ev.Done))
    assert len(done) == TASKS
    assert set(done.values()) == {1}
    assert verify(folder.log) == []
    assert not state(folder).held()
    until: dict[str, float] = {}
    waits = []
    for entry in told:
        match entry.event:
            case ev.Claim(ref=ref, ttl=ttl) | ev.Renew(ref=ref, ttl=ttl):
                until[ref] = entry.time + ttl
            case ev.Expire(ref=ref):
                waits.append(entry.time - until[ref])
    assert all(wait <= NOTICE_SECONDS for wait in waits), waits
    kinds = Counter(entry.author.partition("-")[0] for entry in told if isinstance(entry.event, ev.Done))
    print(
        f"{TASKS} tasks done once by {dict(kinds)}; {len(waits)} leases of the dead ended, the latest {max(waits, default=0):.0f} s after its time"
    )
