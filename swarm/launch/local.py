"""Starts worker processes on this machine, notices their end, finds and ends those of an earlier coordinator; decides nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bus.liveness import describe_exit
from swarm.files import read_json, write_whole
from swarm.launch.layout import WorkerSpec
from swarm.log import NO_SPACE
from swarm.rundir import RunFolder


@dataclass(slots=True)
class Child:
    """A worker process of this run: started here, or adopted from a coordinator that has ended."""

    spec: WorkerSpec
    pid: int
    started: str
    """Its start time as `process_started` tells it: with the pid it names a process for ever."""
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
    folder.workers.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "trainer", "--join", str(join), "--run", str(folder.path),
        "--roles", ",".join(spec.roles), "--device", spec.device, "--threads", str(spec.threads),
    ]  # fmt: skip
    with (folder.workers / f"{spec.name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(spec)
        )
    return Child(spec, process.pid, process_started(process.pid) or "", process)


def _environment(spec: WorkerSpec) -> dict[str, str]:
    threads = str(spec.threads)
    return {
        **os.environ,
        # OpenMP and MKL read these when torch is imported.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the driver's order, in which `gpu_index` counts
        "CUDA_VISIBLE_DEVICES": "" if spec.gpu_index is None else str(spec.gpu_index),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def process_started(pid: int) -> str | None:
    """When the process began, as the system tells it; None if there is none.  With the pid it names a process for ever."""
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]  # field 22 of proc(5): start time in clock ticks
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def write_down(children: Iterable[Child], folder: RunFolder) -> bool:
    """Note who lives, so that the next coordinator can adopt them, and `swarm stop` can end them without one.

    False: the disk is full, and the note of before stands.
    """
    known = {child.spec.name: {"pid": child.pid, "started": child.started} for child in children}
    try:
        write_whole(folder.processes, json.dumps(known))
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return False
    return True


def living(folder: RunFolder) -> dict[str, tuple[int, str]]:
    """Worker name -> (pid, start time) of those that were written down and still live."""
    if not folder.processes.exists():
        return {}
    noted = {name: (int(p["pid"]), str(p["started"])) for name, p in read_json(folder.processes).items()}  # type: ignore[index]
    return {name: found for name, found in noted.items() if process_started(found[0]) == found[1]}


def end_all(folder: RunFolder, *, grace_seconds: float) -> list[str]:
    """End workers that have no coordinator: SIGTERM to save, SIGKILL to those that stay.  Returns who was there."""
    found = living(folder)
    _signal_all(folder, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and living(folder):
        time.sleep(0.1)
    _signal_all(folder, signal.SIGKILL)
    return list(found)


def _signal_all(folder: RunFolder, number: signal.Signals) -> None:
    for pid, _ in living(folder).values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
