"""A run that trains while a member of every role floods its coordinator: the owner's command, the leases, the memory.

    python tests/benchmarks/bench_flood.py [SECONDS] [MEMBERS OF EACH ROLE]

Prints how long the owner's `post` takes before and during the flood, how many leases were lost, how much memory the coordinator
took more, and what a worker key without a lease could plant in metrics.db.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from bus.keys import Members
from swarm import events as ev
from swarm.access.client import Client
from swarm.artifacts.metrics import MetricsFile
from swarm.rundir import RunFolder
from tests.benchmarks import flooding
from tests.runs import swarm_process as sp


def peak_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def rows_of(folder: RunFolder) -> list[dict[str, object]]:
    if not folder.metrics.exists():
        return []
    with contextlib.closing(MetricsFile(folder.metrics, readonly=True)) as file:
        return list(file.read())


def latencies(folder: RunFolder, until: float) -> list[float]:
    """Seconds that the owner's command takes, one after another."""
    taken = []
    with Client(folder) as owner:
        while time.monotonic() < until or not taken:
            began = time.monotonic()
            owner.append(ev.Post(ref="run", body="the owner's"), timeout_seconds=60)
            taken.append(time.monotonic() - began)
            time.sleep(0.1)
    return taken


def measure(place: Path, seconds: float, of_each: int) -> dict[str, float]:
    """The figures of one flood of a run that is just training."""
    folder = sp.start(sp.write_config(place, streams="  only: {lora_r: 2}", steps=100_000, extra="  max_minutes: 30"))
    sp.wait_for(lambda: rows_of(folder), "the first step", folder=folder)
    members = Members.open(folder.keys)
    joins = {
        f"{role}-x{n}": (members.invite(f"{role}-x{n}", role), role) for role in flooding.KINDS for n in range(of_each)
    }
    quiet = latencies(folder, time.monotonic() + 2)
    pid = sp.coordinator_pid(folder)
    before = peak_mib(pid)
    processes = flooding.start(joins, seconds)
    time.sleep(1.5)  # the interpreters start
    during = latencies(folder, time.monotonic() + seconds - 1.5)
    for process in processes:
        process.join(60)
        process.kill()
    peak = peak_mib(pid)
    entries = sp.entries(folder)
    planted = sum(row["loss"] == 0.1 for row in rows_of(folder))
    sp.swarm("stop", str(folder.path), cwd=place, check=None)
    return {
        "quiet_median_s": statistics.median(quiet), "flood_median_s": statistics.median(during), "flood_max_s": max(during),
        "answers": len(during), "leases_lost": sum(isinstance(entry.event, ev.Expire) for entry in entries),
        "memory_mib": peak - before, "planted_rows": planted,
        "entries_of_flooders": sum(entry.author in joins for entry in entries),
    }  # fmt: skip


if __name__ == "__main__":
    words = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            figures = measure(place, float(words[0]) if words else 10.0, int(words[1]) if len(words) > 1 else 1)
        finally:
            for _ in sp.end_everything(place):
                pass
    print("  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
