"""Faults of a real trainer in a real run: what is shown, after how long, what is lost and what happens twice (nothing).

Two faults cannot be brought about from outside, so the worker processes are started with a `sitecustomize` that obeys two signals:
SIGUSR1 holds the main thread in a Python call, SIGUSR2 in a C call that keeps the interpreter's lock.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.log import run_is_alive
from swarm.rundir import RunFolder
from swarm.views.snapshot import WorkerRow
from swarm.views.watch import Watcher
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SITECUSTOMIZE = """
import ctypes, os, signal, sys, time
if "trainer" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))
    signal.signal(signal.SIGUSR2, lambda *_: ctypes.PyDLL(None).sleep(600))
"""
STEPS = 400


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    inject(tmp_path / "faults", monkeypatch)
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=STEPS)
    config.write_text(config.read_text() + "lease_seconds: 10\nstall_seconds: 3\nstop_seconds: 2\nretries: 9\n")
    return sp.start(config)


def inject(faults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python that the run starts execute the `sitecustomize` of this folder."""
    plain = sp.environment()
    monkeypatch.setattr(sp, "environment", lambda: {**plain, "PYTHONPATH": f"{faults}:{plain['PYTHONPATH']}"})


def test_each_fault_of_a_trainer_is_told_apart_and_loses_and_doubles_nothing(folder: RunFolder) -> None:
    with Watcher.attach(folder.path) as watcher:
        for name, number, state in (
            ("SIGKILL", signal.SIGKILL, "gone"),
            ("SIGSTOP", signal.SIGSTOP, "unreachable"),
            ("GIL held in C", signal.SIGUSR2, "unreachable"),
            ("main thread stuck", signal.SIGUSR1, "stalled"),
        ):
            trainer = steps_of(watcher, folder)
            os.kill(trainer.pid, number)
            began = time.monotonic()
            until(watcher, trainer.name, lambda row, shown=state: row.state == shown)
            noticed = time.monotonic() - began
            if state == "stalled":  # it keeps its lease: whoever sees it decides, and the stop ladder ends it
                sp.swarm("stop", str(folder.path), "--stream", "only", cwd=folder.path.parent.parent)
            until(watcher, trainer.name, lambda row, old=trainer.pid: row.pid != old)
            over = time.monotonic() - began
            print(f"\n{name}: {state} after {noticed:.1f} s, its process gone after {over:.1f} s", end="")
    sp.wait_for(lambda: not run_is_alive(folder.log), "the run's end: its only stream was stopped")
    sp.swarm("resume", str(folder.path), "--stream", "only", "--detach", cwd=folder.path.parent.parent)
    state = sp.wait_for_end(folder)

    assert state.end is not None
    assert state.end.rc == 0
    expiries = [e.event for e in sp.entries(folder) if isinstance(e.event, ev.Expire)]
    assert [e.ref for e in expiries] == ["only/train"] * 4
    assert len({e.tok for e in expiries}) == 4, "no lease ended twice"
    for expiry, why in zip(expiries, ("SIGKILL", "no heartbeat", "no heartbeat", "told to stop"), strict=True):
        assert why in expiry.why
    rows = sp.swarm("export", str(folder.path), "--format", "csv", "--what", "metrics", cwd=folder.path.parent.parent)
    steps = [int(row.split(",")[3]) for row in rows.stdout.splitlines() if ",train," in row]
    assert steps == list(range(1, STEPS + 1))
    saved = [c.step for c in state.streams["only"].checkpoints]
    assert saved == sorted(set(saved)), "no checkpoint is reported twice, none is trained again"


def until(watcher: Watcher, name: str, met: Callable[[WorkerRow], bool]) -> None:
    """Until the worker's row is as wanted, or nobody shows it any more."""
    sp.wait_for(lambda: all(met(row) for row in watcher.snapshot().workers if row.name == name), f"{name} so")


def steps_of(watcher: Watcher, folder: RunFolder) -> WorkerRow:
    """The worker that trains, once it has saved something under its present lease."""

    def saved() -> WorkerRow | None:
        state = watcher.state
        lease = state.tasks["only/train"].lease if "only/train" in state.tasks else None
        mine = lease and any(c.tok == lease.token for c in state.streams["only"].checkpoints)
        return next(
            (w for w in watcher.snapshot().workers if mine and lease and w.name == lease.worker and w.pid), None
        )

    found: Callable[[], WorkerRow | None] = saved
    row = sp.wait_for(found, "a checkpoint under this lease", folder=folder)
    assert isinstance(row, WorkerRow)
    return row


TRAINER_DIES = """
import os, sys
def die(event, words):
    if event == "open" and words[0] == "trainer-1.log":
        os._exit(3)
if "trainer" in sys.orig_argv:
    sys.addaudithook(die)
"""
SERVER_DIES = """
import os, sys
if "forkserver" in sys.orig_argv:
    os._exit(3)
"""


@pytest.mark.parametrize(
    ("fault", "reason", "log"),
    [(TRAINER_DIES, "exit 3", "trainer-1"), (SERVER_DIES, "exit 3 of its fork server", "forkserver")],
    ids=["the worker", "its fork server"],
)
def test_a_worker_that_dies_at_every_start_is_parked_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str, log: str
) -> None:
    (tmp_path / "faults").mkdir()
    (tmp_path / "faults" / "sitecustomize.py").write_text(fault)
    inject(tmp_path / "faults", monkeypatch)
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=2)
    done = sp.swarm("run", config.name, cwd=tmp_path, check=1)
    [path] = (tmp_path / "runs").iterdir()
    state, folder = sp.state(RunFolder(path)), RunFolder(path)
    notes = [e.event.body for e in sp.entries(folder) if isinstance(e.event, ev.Post)]
    why = f"ended 5 times within 60 s; not started again; last: {reason}; see workers/{log}.log"
    assert any(f"is parked: {why}" in note for note in notes)
    assert reason in state.streams["only"].failed
    assert f"see workers/{log}.log" in done.stdout + done.stderr
