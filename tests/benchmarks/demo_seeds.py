"""The demo over several seeds: held-out exact match of the bare base and of each stream, printed.

python tests/benchmarks/demo_seeds.py [SEED ...]        # three seeds by default, a few minutes each on two cores
"""

from __future__ import annotations

import json
import subprocess
import sys
import time


def run(seed: int) -> tuple[float, list[dict[str, object]]]:
    """Wall seconds and the streams' rows."""
    began = time.monotonic()
    command = [sys.executable, "-m", "swarm.cli", "run", "configs/demo.yaml", f"seed={seed}", "--json", "--plain"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return time.monotonic() - began, json.loads(done.stdout)["streams"]


def main() -> None:
    seeds = [int(word) for word in sys.argv[1:]] or [0, 1, 2]
    for seed in seeds:
        seconds, streams = run(seed)
        figures = "  ".join(f"{row['stream']} {row['exact_match']:.2f}" for row in streams)
        print(
            f"seed {seed}: base {streams[0]['base_exact_match']:.2f}  {figures}  best {max(row['exact_match'] for row in streams):.2f}  ({seconds:.0f} s)",
            flush=True,
        )  # type: ignore[type-var]


if __name__ == "__main__":
    main()
