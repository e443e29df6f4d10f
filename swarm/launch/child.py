"""A worker process as its launcher knows it, and how one is told from every other process of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bus.liveness import describe_exit
from swarm.launch.layout import WorkerSpec
from swarm.rundir import RunFolder

FORK_SERVER = "forkserver"


class Process(Protocol):
    """What is asked of a process that is ours: `subprocess.Popen`, or one that the fork server makes."""

    def poll(self) -> int | None:
        """None while it runs, then its exit status; negative for a signal."""


@dataclass(slots=True, eq=False)
class Child:
    """A worker process of this run: started here, or adopted from a coordinator that has ended."""

    spec: WorkerSpec
    pid: int = 0
    """0: the fork server has not made it yet."""
    started: str = ""
    """Its start time from `process_started`: pid and start time together identify a process."""
    launch: str = ""
    """The nonce in its command line."""
    process: Process | None = None
    """None for an adopted process, whose exit status cannot be read."""

    def exit_reason(self) -> str | None:
        """None while it runs; otherwise how it ended."""
        if self.process is None:
            return None if process_started(self.pid) == self.started else "its process has ended"
        status = self.process.poll()
        return None if status is None else f"{describe_exit(status)}{'' if self.pid else ' of its fork server'}"

    @property
    def log_name(self) -> str:
        """Whose file in the run's `workers/` has what it wrote before it ended."""
        return self.spec.name if self.pid else FORK_SERVER

    def signal_group(self, number: signal.Signals) -> None:
        if self.pid and self.exit_reason() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def exit_descriptor(self) -> int:
        """A descriptor that becomes readable when the process ends (pidfd_open(2)); -1 where the system has none."""
        try:
            return os.pidfd_open(self.pid) if self.pid and hasattr(os, "pidfd_open") else -1
        except OSError:
            return -1


def process_started(pid: int) -> str | None:
    """When the process began, as reported by the system; None if there is none."""
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]  # field 22 of proc(5): start time in clock ticks
    return _ask_ps("lstart=", pid) or None


def is_worker_of(folder: RunFolder, pid: int, launch: str) -> bool:
    """Whether the process is a worker that this user started for this folder.

    The pid and start time that a file of the run folder names are no proof: whoever made the folder can name any process.  Its
    command line must name this folder and this launch (a forked worker has that of its fork server), and it must belong to us and
    lead its process group.
    """
    try:
        if pid <= 1 or not launch or os.getpgid(pid) != pid:
            return False
        owner, words, gap = _command_line(pid)
    except (OSError, ValueError):
        return False
    wanted = (("-m", "trainer"), ("--run", str(folder.path)), ("--launch", launch))
    return owner == os.geteuid() and all(f"{gap}{gap.join(pair)}{gap}" in words for pair in wanted)


def _command_line(pid: int) -> tuple[int, str, str]:
    """The owner's uid, the words of the command line, and the character that separates them.  Raises OSError or ValueError."""
    if Path("/proc/self/cmdline").exists():
        place = Path(f"/proc/{pid}")
        return place.stat().st_uid, (place / "cmdline").read_text(encoding="utf-8", errors="surrogateescape"), "\0"
    return int(_ask_ps("uid=", pid)), f"{_ask_ps('command=', pid)} ", " "


def _ask_ps(column: str, pid: int) -> str:
    found = subprocess.run(["ps", "-ww", "-o", column, "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()
