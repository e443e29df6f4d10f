"""What streams of one base cost as `swarm run` trains them: the shared engine against `engine: trl`, everything included.

    python -m tests.benchmarks.bench_engines [STREAMS] [STEPS]

Prints seconds, CPU seconds of all workers and the highest sum of their memory (PSS) of each, and the ratios shared / trl.  The
ratio of wall clocks means something on a quiet machine only.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

POLL_SECONDS = 0.25
TICKS = os.sysconf("SC_CLK_TCK")
ROWS = 400


@dataclass
class Cost:
    seconds: float = 0.0
    peak_pss: int = 0
    cpu: dict[int, float] = field(default_factory=dict)
    """Seconds by process."""

    def look(self, folder: RunFolder) -> None:
        pss = 0
        for pid in sp.living_workers(folder):
            try:
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            self.cpu[pid] = (int(words[11]) + int(words[12])) / TICKS
            pss += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
        self.peak_pss = max(self.peak_pss, pss)

    @property
    def figures(self) -> tuple[float, float, float]:
        return self.seconds, sum(self.cpu.values()), self.peak_pss / 1e6


def cost_of(engine: str, streams: int, steps: int) -> Cost:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        names = "".join(f"  s{number}: {{lora_r: {4 + 4 * (number % 4)}}}\n" for number in range(streams))
        config = sp.write_config(Path(name), streams=names, steps=steps, rows=ROWS)
        cost, began = Cost(), time.monotonic()
        folder = sp.start(
            config, f"engine={engine}", f"placement.cpu_streams={streams if engine == 'shared' else 'auto'}"
        )
        try:
            while not (end := sp.state(folder).end):
                cost.look(folder)
                time.sleep(POLL_SECONDS)
        finally:
            next(ending := sp.end_everything(Path(name)))
            list(ending)
        assert end.rc == 0, end
        cost.seconds = time.monotonic() - began
        return cost


def main() -> None:
    streams, steps = (int(word) for word in (*sys.argv[1:], *("8", "120")[len(sys.argv) - 1 :]))
    print(f"{streams} streams of {steps} steps, load {os.getloadavg()[0]:.1f}")
    costs = {engine: cost_of(engine, streams, steps).figures for engine in ("shared", "trl")}
    for engine, (seconds, cpu, memory) in costs.items():
        print(f"{engine:7} {seconds:6.0f} s  {cpu:6.0f} CPU s  {memory:6.0f} MB PSS")
    ratios = [mine / theirs for mine, theirs in zip(costs["shared"], costs["trl"], strict=True)]
    print("ratio   {:6.2f}    {:6.2f}        {:6.2f}".format(*ratios))


if __name__ == "__main__":
    main()
