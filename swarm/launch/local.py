"""Start worker processes on this machine, notice their end, and end them; it decides nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from swarm.placement import WorkerSpec
from swarm.rundir import RunFolder


@dataclass(slots=True)
class Child:
    """A worker process that this coordinator started."""

    spec: WorkerSpec
    process: subprocess.Popen[bytes]
    started: float
    """Monotonic seconds."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def exit_reason(self) -> str | None:
        """None while it lives; otherwise what ended it, in words."""
        status = self.process.poll()
        if status is None:
            return None
        if status >= 0:
            return f"exit status {status}"
        name = signal.Signals(-status).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def start(spec: WorkerSpec, folder: RunFolder, join: Path) -> Child:
    """A new worker in a session of its own: it outlives a terminal and, for a while, its coordinator."""
    folder.workers.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "trainer", "--join", str(join), "--run", str(folder.path),
        "--roles", ",".join(spec.roles), "--device", spec.device, "--threads", str(spec.threads),
    ]  # fmt: skip
    with (folder.workers / f"{spec.name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(spec)
        )
    return Child(spec, process, time.monotonic())


def _environment(spec: WorkerSpec) -> dict[str, str]:
    threads = str(spec.threads)
    return {
        **os.environ,
        # Both must stand before torch is imported.
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


def end_strangers(processes: dict[int, str], *, grace_seconds: float) -> None:
    """End workers of an earlier coordinator (pid -> start time): SIGTERM to save, SIGKILL to those that stay."""
    _signal_all(processes, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and _alive(processes):
        time.sleep(0.1)
    _signal_all(processes, signal.SIGKILL)


def _alive(processes: dict[int, str]) -> list[int]:
    return [pid for pid, started in processes.items() if process_started(pid) == started]


def _signal_all(processes: dict[int, str], number: signal.Signals) -> None:
    for pid in _alive(processes):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, number)
