"""Processes that stop themselves at a certain file operation: a hook for Python's audit events is in each, which sees an operation before it happens.

Nothing is imitated: the process is frozen or killed there as it could be by anybody at that moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

Point = str | int
POINTS: tuple[Point, ...] = ("mkdir", 1, 6, "rename")
"""Before the staged folder is made, before the first and the sixth file is opened after that, before the folder gets its place."""
HOOK = """
import json, os, re, signal, sys
stops, opened, busy = json.loads(os.environ["STOPS"]), {}, []

def stop(event, arguments):
    if busy or not arguments or event not in {"open", "os.mkdir", "os.rename"}:
        return
    name = os.path.basename(os.fsdecode(arguments[0])) if isinstance(arguments[0], (str, bytes)) else ""
    for pattern, point, mark in stops:
        is_it = re.fullmatch(pattern, name) is not None
        if event == "os.mkdir" and is_it:
            opened[pattern] = 0
        elif event == "open" and pattern in opened:
            opened[pattern] += 1
        now = opened.get(pattern) == point if type(point) is int else is_it and event == f"os.{point}"
        if now:
            busy.append(1)
            stop_once(mark)
            busy.clear()

def stop_once(mark):
    try:
        file = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(file, str(os.getpid()).encode())
    os.close(file)
    os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop)
"""


def put_in(place: Path, monkeypatch: pytest.MonkeyPatch, stops: Mapping[str, tuple[str, Point]]) -> None:
    """Into all processes that are started from here on: by name a pattern of the folder's name and the point; each stops one process once."""
    (place / "hook").mkdir()
    (place / "hook/sitecustomize.py").write_text(HOOK)
    listed = [(pattern, point, str(place / name)) for name, (pattern, point) in stops.items()]
    before = sp.environment

    def environment() -> dict[str, str]:
        path = f"{place / 'hook'}{os.pathsep}{Path.cwd()}"
        return {**before(), "PYTHONPATH": path, "STOPS": json.dumps(listed)}

    monkeypatch.setattr(sp, "environment", environment)


def stopped(place: Path, name: str, folder: RunFolder) -> int:
    """The process that has stopped itself there."""
    mark = place / name
    sp.wait_for(lambda: mark.exists() and mark.read_text(), f"the stop in {name}", 60, folder)
    pid = int(mark.read_text())
    sp.wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "its stop")
    return pid
