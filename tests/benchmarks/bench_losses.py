"""The losses of `method: sft`, and SDFT, each at its own best learning rate over seeds: gain on the task, drift from the base, loss on unrelated text.

    python tests/benchmarks/bench_losses.py losses.json [--seeds 3] [--minutes 8]        # the table of docs/methods.md

What has been measured stands in the file; a call ends after so many minutes, and the next one goes on.

First each loss is trained with three learning rates, and with higher or lower ones as long as the best is the highest or lowest of them;
the best has the lowest held-out loss (which is the plain one for all losses).  Then the best is trained with other seeds and measured
on rows that had no part in that choice.  What is held out are other topics of the same style: one half chooses, the other one judges.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

DATA = Path(__file__).parents[2] / "configs/data/style"
LOSSES: dict[str, dict[str, Any]] = {
    "nll": {},
    "nll, kl 0.05": {"kl_lambda": 0.05},
    "nll, kl 0.5": {"kl_lambda": 0.5},
    "dft": {"loss": "dft"},
    "asft": {"loss": "asft"},
    "sdft": {"method": "distill", "rollout_tokens": 64},
}
GRID = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0]
FIRST = GRID[4:7]
FIGURES = ("eval_loss", "kl_to_base", "retention_loss")
DEFAULTS = {
    "base_model": "tiny-toon",
    "datasets": [{"path": str(DATA / "train.jsonl"), "type": "chatml"}],
    "sequence_len": 256, "micro_batch_size": 4, "max_steps": 16, "save_steps": 16, "eval_rows": 8, "eval_max_new_tokens": 1,
    "metrics": ["retention_loss", "kl_to_base"],
}  # fmt: skip
HALVES = ("choosing.jsonl", "judging.jsonl")
Measured = dict[str, dict[str, Any]]
"""Figures of each training by `LOSS @ RATE # SEED`; those of one that failed are missing."""


def key_of(loss: str, rate: float, seed: int) -> str:
    return f"{loss} @ {rate:g} # {seed}"


def tried(measured: Measured, loss: str) -> dict[float, float]:
    """The held-out loss of each rate with the first seed."""
    rows = {rate: measured.get(key_of(loss, rate, 0)) for rate in GRID}
    return {rate: row.get("eval_loss") or math.inf for rate, row in rows.items() if row is not None}


def best_rate(measured: Measured, loss: str) -> float:
    found = tried(measured, loss)
    return min(found, key=found.__getitem__)


def next_rates(measured: Measured, loss: str) -> list[float]:
    """To be tried; none once the best one has a higher and a lower one beside it."""
    found = tried(measured, loss)
    if left := [rate for rate in FIRST if rate not in found]:
        return left
    at = GRID.index(best_rate(measured, loss))
    return [rate for rate in GRID[max(0, at - 1) : at + 2] if rate not in found]


def missing(measured: Measured, seeds: int) -> list[tuple[str, float, int]]:
    """Loss, rate and seed of what is to be trained next, as far as it is known: rates first."""
    rates = {loss: next_rates(measured, loss) for loss in LOSSES}
    decided = [loss for loss in LOSSES if not rates[loss]]
    of_seeds = [(loss, best_rate(measured, loss), seed) for loss in decided for seed in range(1, seeds + 1)]
    wanted = [(loss, rate, 0) for loss in LOSSES for rate in rates[loss]] + of_seeds
    return [one for one in wanted if key_of(*one) not in measured]


def run(trainings: list[tuple[str, float, int]]) -> Measured:
    """All in one run; of rates alone the held-out loss is enough."""
    streams = {
        f"s{number}": {
            **LOSSES[loss], "learning_rate": rate, "seed": seed, "test_datasets": [{"path": HALVES[seed > 0], "type": "chatml"}],
            **({} if seed else {"metrics": [], "eval_rows": 0}),
        }
        for number, (loss, rate, seed) in enumerate(trainings)
    }  # fmt: skip
    rows = (DATA / "eval.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    config = {"name": "losses", "defaults": DEFAULTS, "streams": streams, "promotion": {"must_beat": "nothing"}}
    with TemporaryDirectory() as place:
        for at, name in enumerate(HALVES):
            (Path(place) / name).write_text("".join(rows[at::2]), encoding="utf-8")
        (Path(place) / "losses.yaml").write_text(json.dumps(config), encoding="utf-8")
        command = [sys.executable, "-m", "swarm.cli", "run", "losses.yaml", "--json", "--plain"]
        done = subprocess.run(
            command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
    ended = {row["stream"]: row for row in json.loads(done.stdout)["streams"]}
    names = [name for figure in FIGURES for name in (figure, f"base_{figure}")]
    return {
        key_of(*training): {name: ended[f"s{number}"].get(name) for name in names}
        for number, training in enumerate(trainings)
    }


def table(measured: Measured, seeds: int) -> str:
    base = measured[key_of("nll", best_rate(measured, "nll"), 1)]
    lines = ["| loss | learning rate | held-out loss | KL to the base | unrelated text |", "|---|---|---|---|---|"]
    lines += [f"| base | | {base['base_eval_loss']:.3f} | 0 | {base['base_retention_loss']:.3f} |"]
    for loss in LOSSES:
        rate = best_rate(measured, loss)
        mine = [measured[key_of(loss, rate, seed)] for seed in range(1, seeds + 1)]
        figures = [_spread([row[name] for row in mine]) for name in FIGURES]
        among = ", ".join(f"{one:g}" for one in sorted(tried(measured, loss)))
        lines += [f"| {loss} | {rate:g} of {among} | {' | '.join(figures)} |"]
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--at-once", type=int, default=12, help="trainings in one run")
    options = parser.parse_args()
    measured: Measured = json.loads(options.file.read_text()) if options.file.exists() else {}
    until = time.monotonic() + 60 * options.minutes
    while (left := missing(measured, options.seeds)) and time.monotonic() < until:
        measured |= run(left[: options.at_once])
        options.file.write_text(json.dumps(measured, indent=1))
    print(f"{len(measured)} measured, {len(left)} known to be left" if left else table(measured, options.seeds))


if __name__ == "__main__":
    main()
