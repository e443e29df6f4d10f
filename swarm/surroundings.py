"""What a machine, a terminal and an account may lack, tried in one place: encodings, terminals, a folder for sockets, cores, free memory.

What the system does not tell is None, never 0.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from swarm.asciitext import plain
from swarm.errors import UserError

# ---- output ----------------------------------------------------------------------------------------------------------

HANDLER = "toonswarm.substitute"


def open_output() -> None:
    """From here on nothing that is printed can fail for want of a character: results are not lost to an arrow."""
    codecs.register_error(HANDLER, _substituted)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and callable(reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors=HANDLER)


class Unfailing(io.RawIOBase):
    """A descriptor to print to whose errors are ignored: on a full disk what a process says of its work is lost, not its work."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return os.write(self._descriptor, data)
        return len(data)


def open_talk() -> None:
    """From here on nothing that a process without a person prints can end it."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        talk = io.BufferedWriter(Unfailing(descriptor))
        setattr(sys, name, io.TextIOWrapper(talk, encoding="utf-8", errors="backslashreplace", line_buffering=True))


def _substituted(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name that is no text in this locale
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return plain(character), error.start + 1


def can_draw(*streams: TextIO | None) -> bool:
    """True where all streams are a terminal that understands more than plain lines (`TERM`)."""
    named = os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    return named and all(stream is not None and stream.isatty() for stream in streams)


# ---- a folder for sockets --------------------------------------------------------------------------------------------

LONGEST_ROOT = 60
"""Characters: a path of an ipc socket holds 107 bytes."""


def private_folder(mark: str) -> Path:
    """A folder of this account's alone, `toonswarm-<uid>/<mark>`, in the first place where one can be made.

    Raises UserError where what stands there is somebody else's, or where there is no such place.
    """
    named = [os.environ.get(name, "") for name in ("XDG_RUNTIME_DIR", "TMPDIR")]
    roots = [Path(text).absolute() for text in (*named, "/tmp", "/var/tmp", "/dev/shm") if text]  # noqa: S108  private below
    for root in roots:
        if len(str(root)) <= LONGEST_ROOT and (folder := _made(root / f"toonswarm-{os.getuid()}", mark)):
            return folder
    tried = ", ".join(dict.fromkeys(map(str, roots)))
    raise UserError("XDG_RUNTIME_DIR", f"no folder for sockets can be made in {tried}", "set it to a folder of yours")


def _made(parent: Path, mark: str) -> Path | None:
    """None where it cannot be made: XDG_RUNTIME_DIR is another account's after `su`, or names nothing in a container."""
    for part in (parent, parent / mark):
        try:
            part.mkdir(mode=0o700, exist_ok=True)
            found = part.lstat()
        except (FileExistsError, IsADirectoryError):
            found = part.lstat()
        except OSError:
            return None
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or stat.S_IMODE(found.st_mode) & 0o077:
            raise UserError(str(part), "is not a private folder of yours", "remove it or set XDG_RUNTIME_DIR")
    return parent / mark if os.access(parent / mark, os.W_OK | os.X_OK) else None


# ---- cores and memory ------------------------------------------------------------------------------------------------

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
MEMINFO = Path("/proc/meminfo")
NO_LIMIT = 1 << 60
"""Cgroups of version 1 write a number near 2^63 for no limit."""


def cores() -> int:
    """Cores that this process may use: its affinity, bounded by the containers' shares of processor time."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, min(allowed, round(min(_shares(), default=allowed))))


def free_memory_bytes() -> int | None:
    """Memory that could be had without swapping, bounded by the containers' limits; None where the system does not tell."""
    if sys.platform == "darwin":
        return _free_memory_of_macos()
    available = re.search(r"^MemAvailable:\s+(\d+) kB", read(MEMINFO), re.MULTILINE)
    available_bytes = [int(available[1]) * 1024] if available else []
    return min([*available_bytes, *_rooms()], default=None)


def _shares() -> Iterator[float]:
    """Cores that each group on the way up may use."""
    for folder in _groups("cpu"):
        quota, _, period = read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _rooms() -> Iterator[int]:
    """Room below each limit on the way up; file pages that can be dropped count as free."""
    for folder in _groups("memory"):
        for limit, used, droppable in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            most, now = read(folder / limit), read(folder / used)
            if most.isdecimal() and now.isdecimal() and int(most) < NO_LIMIT:
                yield max(0, int(most) - int(now) + _figure_in(folder / "memory.stat", droppable))


def _groups(controller: str) -> Iterator[Path]:
    """The control group of this process and those above it, in every hierarchy that has the controller.

    Version 2 and the unified half of a hybrid have one hierarchy, version 1 one for each controller.  A container often shows
    a root that is the group itself, while the kernel tells the path outside: then the root is all there is.
    """
    places = {CGROUPS: "", CGROUPS / "unified": "", CGROUPS / controller: ""}
    for names, path in re.findall(r"^\d+:([^:]*):/(.*)$", read(OWN_CGROUPS), re.MULTILINE):
        if not names:
            places[CGROUPS] = places[CGROUPS / "unified"] = path
        elif controller in names.split(","):
            places[CGROUPS / names] = places[CGROUPS / controller] = path
    for root, own in places.items():
        folder = root / ("" if ".." in own else own)
        yield from (place for place in (folder, *folder.parents) if place.is_relative_to(root) and place.is_dir())


def _figure_in(path: Path, key: str) -> int:
    line = re.search(rf"^{key} (\d+)$", read(path), re.MULTILINE)
    return int(line[1]) if line else 0


def _free_memory_of_macos() -> int | None:
    try:
        report = subprocess.run(["vm_stat"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return pages_of_vm_stat(report)


def pages_of_vm_stat(report: str) -> int | None:
    """Bytes in pages that are free or can be had at once."""
    page = re.search(r"page size of (\d+) bytes", report)
    counts = [
        int(count)
        for count in re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", report, re.MULTILINE)
    ]
    return int(page[1]) * sum(counts) if page and counts else None


def read(path: Path) -> str:
    """What a file of the system says, without blanks round it; empty where there is none that may be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
