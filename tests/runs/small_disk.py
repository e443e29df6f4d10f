"""A file system of its own that a test may fill: a tmpfs, where this user may mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.runs import swarm_process as sp

SIZE_MIB = 128
"""More than the plan asks for before anything starts."""
ROOM_BYTES = 48 << 10
"""What is left free: enough for entries of the log, not for rows or weights."""


@contextmanager
def small_disk(place: Path, size_mib: int = SIZE_MIB) -> Iterator[Path]:
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "toonswarm-test", str(place)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs leave to mount a tmpfs")
    try:
        yield place
    finally:
        list(sp.end_everything(place))
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Fill it; removing the file makes room again."""
    ballast, free = disk / "ballast", shutil.disk_usage(disk).free
    with ballast.open("wb", buffering=0) as file, suppress(OSError):  # others, who write meanwhile, may take the rest
        file.write(bytes(max(0, free - ROOM_BYTES)))
        os.fsync(file.fileno())
    return ballast
