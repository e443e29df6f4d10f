"""Where this program's own modules are found, and the command lines with which it starts them in processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = ("bus", "swarm", "toon", "trainer", "tui")


def module_command(module: str, *arguments: str) -> list[str]:
    """`python -P -m module arguments`.

    Without `-P` Python puts the current folder first on the import path, and a file there that happens to be called
    `trainer.py`, `toon.py` or `zmq.py` would be imported and run.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def find_own_modules_first() -> None:
    """In this process and those that it starts, also where PYTHONPATH leads to a user's own `trainer.py`.

    An empty entry of PYTHONPATH means the current folder to Python.  It mostly comes of an unset variable (`$UNSET:/x`), and is left out.
    """
    if not (value := os.environ.get("PYTHONPATH")):
        return
    given = value.split(os.pathsep)
    named = [entry for entry in given if entry]
    if len(named) < len(given):
        here = os.path.abspath(os.curdir)  # noqa: PTH100  as Python makes it: with its links
        sys.path[:] = [place for place in sys.path if place != here or here in named]
    if any(map(_holds_name_of_ours, named)):
        named.insert(0, str(ROOT))
        sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = os.pathsep.join(named)


def _holds_name_of_ours(entry: str) -> bool:
    place = Path(entry).resolve()
    return place != ROOT and any((place / name).is_dir() or (place / f"{name}.py").exists() for name in OURS)
