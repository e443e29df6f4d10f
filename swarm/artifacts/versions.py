"""Versions of what runs of one name promote: `demo-v1`, `demo-v2`, counted over all runs of a folder.

A promoted folder states its own in `lineage.json`; the next one is one more than the highest that is there.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swarm.rundir import version_in


@contextmanager
def next_version(runs: Path, name: str) -> Iterator[str]:
    """Nobody else is given one while the block runs, in which the promoted folder is put into place."""
    with _alone(runs):
        taken = [number for path in runs.glob("*/promoted") if (number := _number(path, name))]
        yield f"{name}-v{max(taken, default=0) + 1}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Where the file system cannot lock a folder (NFS), two promotions within a moment may be given one number: no reason to promote nothing."""
    holder = None
    with suppress(OSError):
        holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(holder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if holder is not None:
            os.close(holder)


def _number(promoted: Path, name: str) -> int | None:
    """None where a run of another name promoted it."""
    found = re.fullmatch(rf"{re.escape(name)}-v(\d{{1,9}})", version_in(promoted) or "")
    return int(found[1]) if found else None
