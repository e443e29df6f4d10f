"""`python -m tui RUN_FOLDER`: shows a run until the person detaches; Textual is imported only if there is a terminal."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import UserError
from swarm.views.snapshot import Snapshot

if TYPE_CHECKING:
    from tui.feed import Source

NO_TERMINAL = "tui: no terminal here; use swarm watch --plain"
USAGE = 2
FIRST_PICTURE_SECONDS = 10.0
TERMINAL_SECONDS = 2.0
"""Between two looks whether the terminal is still there."""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 detached or the run ended, 2 wrong usage, 130 the run was stopped."""
    arguments = parser().parse_args(argv)
    if arguments.screenshot is None and not on_a_terminal():
        print(NO_TERMINAL, file=sys.stderr)
        return USAGE
    try:
        if arguments.screenshot is not None:
            return take_picture(arguments.run_folder, arguments.screenshot)
        return watch(arguments.run_folder, readonly=arguments.readonly, name=arguments.name)
    except UserError as error:
        print(error, file=sys.stderr)
        return USAGE


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tui", description="The dashboard of one run.")
    made.add_argument("run_folder", type=Path)
    made.add_argument("--readonly", action="store_true", help="offer no key that changes the run")
    made.add_argument("--as", dest="name", metavar="NAME", help="act under this name; default: the run's owner")
    made.add_argument(
        "--screenshot", type=Path, metavar="FILE.svg", help="write a picture of the run as it stands, and leave"
    )
    return made


def on_a_terminal() -> bool:
    """Whether all three streams are terminals: Textual reads stdin and draws on stderr; without a terminal it prints escape codes and exits with 0."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def end_with_the_terminal() -> None:
    """Nobody hangs up on a process whose terminal was another session's.

    Textual would read the end of a closed terminal again and again, and its event loop waits for the thread that could not write to it:
    so the process ends, as if it had been hung up on.  The run goes on.
    """
    while sys.stdin.isatty():
        time.sleep(TERMINAL_SECONDS)
    os._exit(0)


def watch(run_folder: Path, *, readonly: bool, name: str | None = None) -> int:
    from swarm import asciitext
    from swarm.views.watch import Watcher
    from tui.app import Dashboard

    watcher = Watcher.attach(run_folder, name=name)
    threading.Thread(target=end_with_the_terminal, daemon=True).start()
    try:
        only_ascii = asciitext.needed(os.environ)
        app = Dashboard(watcher, readonly=readonly, only_ascii=only_ascii)
        app.run()
        return app.return_code or 0
    finally:
        watcher.close()


def take_picture(run_folder: Path, path: Path) -> int:
    from swarm.views.watch import Watcher
    from tui.picture import picture

    watcher = Watcher.attach(run_folder)
    try:
        picture(first_whole(watcher), path)
    finally:
        watcher.close()
    return 0


def first_whole(source: Source) -> Snapshot:
    """The first snapshot with streams and, while the run is running, with workers; a watcher may need a moment for both."""
    until = time.monotonic() + FIRST_PICTURE_SECONDS
    while time.monotonic() < until:
        snapshot = source.snapshot()
        if snapshot.streams and (snapshot.workers or snapshot.state != "running"):
            break
        source.wait(0.2)
    return snapshot


if __name__ == "__main__":
    sys.exit(main())
