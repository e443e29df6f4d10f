"""Where agents meet in tests: a log that somebody opened, with nobody at work in it or with a real coordinator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm import config
from swarm.agents.agent import open_run
from swarm.files import write_whole
from swarm.launch.layout import Layout
from swarm.log import Entry, Log, run_is_alive
from swarm.rundir import RunFolder
from swarm.state import State, fold
from tests.runs import swarm_process as sp

PATIENCE_SECONDS = 60.0


def opened(tmp_path: Path, name: str = "work") -> RunFolder:
    return open_run(name, "owner", tmp_path / "runs")


def entries(folder: RunFolder) -> list[Entry]:
    return Log(folder.log).refresh()


def state(folder: RunFolder) -> State:
    return fold(entries(folder))


def kinds(folder: RunFolder) -> list[str]:
    return [entry.event.kind for entry in entries(folder)]


def configure(tmp_path: Path, folder: RunFolder, extra: str = "") -> None:
    """Settings and a crew of nobody: a coordinator in it records and decides, and nothing is trained."""
    path = sp.write_config(tmp_path, streams="  wide: {lora_r: 2}")
    path.write_text(path.read_text() + extra)
    write_whole(folder.config, config.load(path, cwd=tmp_path).dump())
    Layout(workers=()).write(folder.layout)


OTHER_CLOCK = """
import sys, time
clock, ahead = time.time, float(sys.argv[2])
time.time = lambda: clock() + ahead
from swarm.coordinator.main import main
sys.exit(main(sys.argv[1:2]))
"""
"""A coordinator that began before the machine's clock was set by so many seconds: its own is steady."""


@contextmanager
def coordinator(folder: RunFolder, *, ahead_seconds: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    """A coordinator at work; ended like a person would."""
    code, more = (["-c", OTHER_CLOCK], [str(ahead_seconds)]) if ahead_seconds else (["-m", "swarm.coordinator"], [])
    with (folder.path / "coordinator.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, *code, str(folder.path), *more],
            env=sp.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or (folder.connect.exists() and run_is_alive(folder.log)))
        assert process.poll() is None, (folder.path / "coordinator.log").read_text()
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: object, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
