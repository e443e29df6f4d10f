"""SIGSTOP and SIGKILL exactly while rows are prepared and while the winner is promoted: nothing is lost, and nothing is left half-written.

The process stops itself: a hook for Python's audit events is in it, which sees each file operation before it happens.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.log import run_is_alive, verify
from swarm.rundir import RunFolder
from swarm.weights import adapter_sha256
from tests.runs import swarm_process as sp
from trainer import whole

TORTURE = os.environ.get("TORTURE") == "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not TORTURE, reason="`make torture` runs it"),
]
STOPPER = """
import json, os, re, signal, sys
stops, seen, busy = json.loads(os.environ["STOPS"]), {}, []

def stop(event, arguments):
    if busy or not arguments or event not in {"open", "os.mkdir", "os.rename"}:
        return
    name = os.path.basename(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes)) else ""
    for pattern, point, mark in stops:
        if event == "os.mkdir" and re.fullmatch(pattern, name):
            seen[pattern] = 0
        elif event == "open" and pattern in seen:
            seen[pattern] += 1
        now = {"mkdir": event == "os.mkdir", "rename": event == "os.rename"}.get(point, seen.get(pattern) == point)
        if now and (type(point) is int or re.fullmatch(pattern, name)):
            busy.append(1)
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                with open(mark, "w") as file:
                    file.write(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGSTOP)
            busy.clear()

sys.addaudithook(stop)
"""
PREPARING, PROMOTING = r"\.[0-9a-f]{16}\.[0-9]+-[0-9]+", r"\.promoted\.staged"
POINTS = ("mkdir", 1, 6, "rename")
"""Before the staged folder is made, before the first and the sixth file is opened after that, before it gets its place."""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def begun(place: Path, monkeypatch: pytest.MonkeyPatch, preparing: object, promoting: object) -> RunFolder:
    (place / "hook").mkdir()
    (place / "hook/sitecustomize.py").write_text(STOPPER)
    stops = [(PREPARING, preparing, str(place / "preparing")), (PROMOTING, promoting, str(place / "promoting"))]
    before = sp.environment

    def environment() -> dict[str, str]:
        return {**before(), "PYTHONPATH": f"{place / 'hook'}{os.pathsep}{Path.cwd()}", "STOPS": json.dumps(stops)}

    monkeypatch.setattr(sp, "environment", environment)
    config = sp.write_config(place, streams="  only: {lora_r: 2}", steps=4)
    config.write_text(
        config.read_text().replace("name: test\n", "name: test\nlease_seconds: 10\n")
        + "promotion: {must_beat: nothing}\n"
    )
    return sp.start(config)


def stopped(place: Path, what: str, folder: RunFolder) -> int:
    """The process that stopped itself there."""
    sp.wait_for(lambda: (place / what).exists() and (place / what).read_text(), f"the stop in {what}", folder=folder)
    pid = int((place / what).read_text())
    sp.wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "its stop")
    return pid


def ends_well(folder: RunFolder) -> None:
    state = sp.wait_for_end(folder)
    assert state.end is not None and state.end.rc == 0, state.end
    assert state.promoted is not None and adapter_sha256(folder.promoted) == state.promoted.sha256
    prepared = state.streams["only"].prepared
    assert prepared is not None
    whole.verify(folder.path / prepared.path, prepared.sha256)
    sp.wait_for(lambda: not run_is_alive(folder.log), "the coordinator's end")
    assert verify(folder.log) == []
    assert not list(folder.path.glob(".promoted*"))
    assert len([entry for entry in sp.entries(folder) if isinstance(entry.event, ev.Promote)]) == 1


CASES = list(product(POINTS, ("kill", "freeze"))) if TORTURE else [(1, "freeze")]


@pytest.mark.parametrize(("point", "how"), CASES)
def test_a_worker_that_stops_in_preparing_and_a_coordinator_that_stops_in_promoting_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: object, how: str
) -> None:
    """The worker first: frozen past its lease, or killed.  The coordinator then: killed where the worker was frozen, and the other way round."""
    folder = begun(tmp_path, monkeypatch, point, point)
    worker = stopped(tmp_path, "preparing", folder)
    if how == "kill":
        os.kill(worker, signal.SIGKILL)
    sp.wait_for(
        lambda: any(isinstance(entry.event, ev.Expire) for entry in sp.entries(folder)),
        "the lease's end",
        folder=folder,
    )
    sp.wait_for(lambda: sp.state(folder).streams["only"].prepared, "the rows", folder=folder)

    coordinator = stopped(tmp_path, "promoting", folder)
    if how == "freeze":
        os.kill(coordinator, signal.SIGKILL)
        sp.wait_for(lambda: not run_is_alive(folder.log), "its end")
        sp.swarm("resume", str(folder.path), "--detach", cwd=tmp_path)
    else:
        assert sp.state(folder).promoted is None
        os.kill(coordinator, signal.SIGCONT)
    ends_well(folder)
