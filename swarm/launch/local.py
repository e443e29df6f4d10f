"""Starts worker processes on this machine, finds and ends those of an earlier coordinator; decides nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from swarm.files import read_json, write_whole
from swarm.launch.child import Child, is_worker_of, process_started
from swarm.launch.forkserver import ForkServer, can_fork
from swarm.launch.layout import Layout, WorkerSpec
from swarm.plainfiles import make_folder, may_pass, opener
from swarm.rundir import RunFolder
from swarm.spawning import module_command

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""How threads of one process wait for each other, unless the user has chosen.

They spin for microseconds, then they sleep.  Milliseconds of a step of 8 x 105 tokens on two threads of two cores, a process alone and two
at once: asleep at once 155 and 162; with these 100 and 230; torch's default, which spins for milliseconds, 91 and 380 to 722.
"""

KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""Bytes, of glibc, unless the user has chosen: what one pass frees the next one takes again.

Left alone it may give them back to the system each time, which costs more than a microsecond for each page.  Nine times 100 held-out
rows on the embedded base: 0.4 to 0.9 million page faults and 10.3 s of CPU time, 65,000 and 8.7 s with these (mallopt(3)).
"""


def start(spec: WorkerSpec, folder: RunFolder, join: Path, forks: ForkServer) -> Child:
    """A new worker in its own session: it survives the terminal and, for a while, its coordinator.  Raises OSError."""
    make_folder(folder.workers)
    arguments = [
        "--join", str(join), "--run", str(folder.path), "--roles", ",".join(spec.roles),
        "--device", spec.device, "--threads", str(spec.threads),
    ]  # fmt: skip
    if can_fork(spec):
        return forks.start(spec, arguments, environment(spec))
    launch = secrets.token_hex(8)
    with open(folder.workers / f"{spec.name}.log", "ab", opener=opener) as log:
        process = subprocess.Popen(
            module_command("trainer", *arguments, "--launch", launch),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment(spec)},
        )  # fmt: skip
    return Child(spec, process.pid, process_started(process.pid) or "", launch, process)


def fork_server(layout: Layout, folder: RunFolder) -> ForkServer:
    """Of the workers on CPUs; not at work before it is asked, or told to begin."""
    return ForkServer(folder, [role for spec in layout.workers if can_fork(spec) for role in spec.roles])


def begin(forks: ForkServer, layout: Layout, folder: RunFolder) -> None:
    """Where a worker is to be forked, its server imports while the coordinator reads on.  Raises OSError."""
    there = living(folder)
    if to_come := [spec for spec in layout.workers if can_fork(spec) and spec.name not in there]:
        forks.begin(environment(to_come[0]))


def environment(spec: WorkerSpec) -> dict[str, str]:
    """What its process has beside, or instead of, what it inherits."""
    threads = str(spec.threads)
    return {
        # OpenMP and MKL read these when torch is imported.
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        **({} if WAITING.keys() & os.environ.keys() else WAITING),
        **({} if KEEPING.keys() & os.environ.keys() else KEEPING),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the driver's order, in which `gpu_index` counts
        "CUDA_VISIBLE_DEVICES": "" if spec.gpu_index is None else str(spec.gpu_index),
        "PYTORCH_ENABLE_MPS_FALLBACK": "1",  # what MPS has no kernel for is computed on the CPU
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


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
