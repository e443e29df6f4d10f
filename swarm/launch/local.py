"""Starts worker processes on this machine, notices their end, finds and ends those of an earlier coordinator; decides nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bus.liveness import describe_exit
from swarm.files import read_json, write_whole
from swarm.launch.layout import WorkerSpec
from swarm.plainfiles import make_folder, may_pass, opener
from swarm.rundir import RunFolder
from swarm.spawning import module_command

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""How threads of one process wait for each other, unless the user has chosen.

They spin for microseconds, then they sleep.  Milliseconds of a step of 8 x 105 tokens on two threads of two cores, a process alone and two
at once: asleep at once 155 and 162; with these 100 and 230; torch's default, which spins for milliseconds, 91 and 380 to 722.
"""


@dataclass(slots=True)
class Child:
    """A worker process of this run: started here, or adopted from a coordinator that has ended."""

    spec: WorkerSpec
    pid: int
    started: str
    """Its start time from `process_started`: pid and start time together identify a process."""
    launch: str = ""
    """The nonce in its command line."""
    process: subprocess.Popen[bytes] | None = None
    """None for an adopted process, whose exit status cannot be read."""

    def exit_reason(self) -> str | None:
        """None while it runs; otherwise how it ended."""
        if self.process is None:
            return None if process_started(self.pid) == self.started else "its process has ended"
        status = self.process.poll()
        return None if status is None else describe_exit(status)

    def signal_group(self, number: signal.Signals) -> None:
        if self.exit_reason() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def exit_descriptor(self) -> int:
        """A descriptor that becomes readable when the process ends (pidfd_open(2)); -1 where the system has none."""
        try:
            return os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else -1
        except OSError:
            return -1


def start(spec: WorkerSpec, folder: RunFolder, join: Path) -> Child:
    """A new worker in its own session: it survives the terminal and, for a while, its coordinator."""
    make_folder(folder.workers)
    launch = secrets.token_hex(8)
    command = module_command(
        "trainer", "--join", str(join), "--run", str(folder.path), "--roles", ",".join(spec.roles),
        "--device", spec.device, "--threads", str(spec.threads), "--launch", launch,
    )  # fmt: skip
    with open(folder.workers / f"{spec.name}.log", "ab", opener=opener) as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(spec)
        )
    return Child(spec, process.pid, process_started(process.pid) or "", launch, process)


def _environment(spec: WorkerSpec) -> dict[str, str]:
    threads = str(spec.threads)
    return {
        **os.environ,
        # OpenMP and MKL read these when torch is imported.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        **({} if WAITING.keys() & os.environ.keys() else WAITING),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the driver's order, in which `gpu_index` counts
        "CUDA_VISIBLE_DEVICES": "" if spec.gpu_index is None else str(spec.gpu_index),
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",  # what MPS has no kernel for is computed on the CPU
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


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
    command line must name this folder and this launch, and it must belong to us and lead its process group.
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


class Known(NamedTuple):
    """A worker process in the list on disk."""

    pid: int
    started: str
    launch: str


def write_down(children: Iterable[Child], folder: RunFolder) -> bool:
    """Write the list of running workers, so that the next coordinator can adopt them and `swarm stop` can end them without one.

    False: it cannot be written now (the disk is full, say), and the file is unchanged.
    """
    known = {child.spec.name: Known(child.pid, child.started, child.launch)._asdict() for child in children}
    try:
        write_whole(folder.processes, json.dumps(known))
    except OSError as error:
        if not may_pass(error):
            raise
        return False
    return True


def living(folder: RunFolder) -> dict[str, Known]:
    """The workers in the list on disk that still run and are ours (`is_worker_of`), by name.  Raises UserError."""
    if not folder.processes.exists():
        return {}
    try:
        noted = {name: Known(**values) for name, values in read_json(folder.processes).items()}  # type: ignore[arg-type]
    except TypeError:  # of an earlier version, or not written by this program
        return {}
    return {name: known for name, known in noted.items() if _is_living(folder, known)}


def _is_living(folder: RunFolder, known: Known) -> bool:
    is_sound = type(known.pid) is int and isinstance(known.started, str) and isinstance(known.launch, str)
    return is_sound and process_started(known.pid) == known.started and is_worker_of(folder, known.pid, known.launch)


def end_all(folder: RunFolder, *, grace_seconds: float) -> list[str]:
    """End workers that have no coordinator: SIGTERM, so that they save, then SIGKILL.  Returns their names."""
    found = living(folder)
    _signal_all(folder, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and living(folder):
        time.sleep(0.1)
    _signal_all(folder, signal.SIGKILL)
    return list(found)


def _signal_all(folder: RunFolder, number: signal.Signals) -> None:
    for known in living(folder).values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(known.pid, number)
