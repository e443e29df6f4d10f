"""Memory of this process and of its GPU, in bytes; peaks are counted above a given floor, since the imports alone take half a gigabyte."""

from __future__ import annotations

import re
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
_imports_bytes = 0
"""Of the fork server that this process comes from: pages of files are counted in a forked process once it has touched them."""


def note_imports() -> None:
    """Before workers are forked from this process."""
    global _imports_bytes  # noqa: PLW0603  inherited by the forked processes, which is the point
    _imports_bytes = resident_bytes()


def floor_bytes() -> int:
    """What a worker takes before its first task; to be asked once its roles are imported."""
    return max(resident_bytes(), _imports_bytes)


def resident_bytes() -> int:
    """Resident memory now; 0 if the system does not report it."""
    return _status_bytes("VmRSS")


def forget_peak() -> None:
    """Start a new high-water mark: writing 5 resets VmHWM (proc(5), clear_refs)."""
    try:
        CLEAR_REFS.write_text("5")
    except OSError as error:  # not permitted in this container: the peak then counts from the process's start
        print(f"trainer: peak memory counts from the start of the process ({error.strerror})", file=sys.stderr)


def peak_bytes_above(floor_bytes: int) -> int | None:
    peak_bytes = _status_bytes("VmHWM")
    return max(0, peak_bytes - floor_bytes) if peak_bytes else None


def _status_bytes(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", _read(STATUS), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
