"""Prints how a run stands when a command leaves it: it goes on, it has ended, or its coordinator is gone."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from swarm.cli.screen import print_data, tell

if TYPE_CHECKING:
    from swarm.rundir import RunFolder

LEAVING_SECONDS = 5.0
"""A worker may hang: the command does not."""


def print_detached(folder: RunFolder) -> None:
    """Print that the run goes on, and the commands to attach to it and to stop it."""
    name = folder.name
    print(f"swarm: detached; {name} goes on", file=sys.stderr)
    print(f"  swarm watch {name}   shows it again", file=sys.stderr)
    print(f"  swarm stop {name}    saves and stops it", file=sys.stderr)


def print_left(folder: RunFolder) -> None:
    """Print, after a person left the dashboard, how the run stands and the next command."""
    from swarm.log import Log, run_is_alive
    from swarm.state import fold

    if run_is_alive(folder.log):
        print_detached(folder)
    elif fold(Log(folder.log).entries()).run is None:
        print(f"swarm: `swarm run CONFIG --in {folder.name}` starts a run in this log", file=sys.stderr)
    else:
        print_orphaned(folder)


def has_ended(folder: RunFolder) -> bool:
    from swarm.log import Log
    from swarm.state import fold

    return fold(Log(folder.log).entries()).end is not None


def wait_until_left(folder: RunFolder) -> None:
    """Until the coordinator of a run that has ended is gone, too: it ends its workers and writes its summary."""
    from swarm.log import run_is_alive

    deadline = time.monotonic() + LEAVING_SECONDS
    while run_is_alive(folder.log) and time.monotonic() < deadline:
        time.sleep(0.02)


def print_orphaned(folder: RunFolder) -> int:
    print(
        f"{folder.name}: its coordinator is gone; `swarm resume {folder.name}` goes on, see {folder.path}/coordinator.log",
        file=sys.stderr,
    )
    return 1


def print_result(folder: RunFolder, form: bool | None = None) -> int:
    """Print the result of the run and return its exit status."""
    from swarm.views.watch import Watcher

    with Watcher.attach(folder.path) as watcher:
        snapshot = watcher.snapshot()
    if form is None:
        from swarm.cli import results

        tell(results.text(folder, snapshot))
    else:
        from swarm.views.report import session

        print_data(session(snapshot), form)
    return snapshot.rc if snapshot.rc is not None else 1
