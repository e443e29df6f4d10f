"""The losses of `method: sft` at each one's best learning rate over seeds: gain on the task, drift from the base, and loss on unrelated text.

python tests/benchmarks/bench_losses.py [SEEDS]        # three by default; five minutes of two cores; prints the table of docs/methods.md

First each loss is trained with each learning rate, and the one with the lowest held-out loss is taken (which is the plain one for all losses);
then with other seeds.  What is held out are other topics of the same style, so that gain and choice of the rate share rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
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
}
RATES = [1e-3, 3e-3]
DEFAULTS = {
    "base_model": "tiny-toon",
    "datasets": [{"path": str(DATA / "train.jsonl"), "type": "chatml"}],
    "test_datasets": [{"path": str(DATA / "eval.jsonl"), "type": "chatml"}],
    "sequence_len": 256, "micro_batch_size": 4, "max_steps": 16, "save_steps": 16, "eval_rows": 8, "eval_max_new_tokens": 1,
    "metrics": ["retention_loss", "kl_to_base"],
}  # fmt: skip
FIGURES = ("eval_loss", "kl_to_base", "retention_loss")


def run(folder: Path, streams: dict[str, dict[str, Any]], **more: Any) -> dict[str, dict[str, Any]]:
    """The streams' rows by name."""
    config = {"name": "losses", "defaults": DEFAULTS | more, "streams": streams, "promotion": {"must_beat": "nothing"}}
    (folder / "losses.yaml").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "swarm.cli", "run", "losses.yaml", "--json", "--plain"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return {row["stream"]: row for row in json.loads(done.stdout)["streams"]}


def best_rates(folder: Path) -> dict[str, float]:
    """By loss."""
    tried = {
        f"l{number}.r{index}": {**LOSSES[loss], "learning_rate": rate}
        for number, loss in enumerate(LOSSES)
        for index, rate in enumerate(RATES)
    }
    rows = run(folder, tried, metrics=[], eval_rows=0)
    return {
        loss: min(RATES, key=lambda rate: rows[f"l{number}.r{RATES.index(rate)}"]["eval_loss"])
        for number, loss in enumerate(LOSSES)
    }


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with TemporaryDirectory() as place:
        rates = best_rates(Path(place))
        streams = {
            f"l{number}.s{seed}": {**LOSSES[loss], "learning_rate": rates[loss], "seed": seed}
            for number, loss in enumerate(LOSSES)
            for seed in range(1, seeds + 1)
        }
        rows = run(Path(place), streams)
    first = next(iter(rows.values()))
    print("| loss | learning rate | held-out loss | KL to the base | unrelated text |\n|---|---|---|---|---|")
    print(f"| base | | {first['base_eval_loss']:.3f} | 0 | {first['base_retention_loss']:.3f} |")
    for number, loss in enumerate(LOSSES):
        mine = [rows[f"l{number}.s{seed}"] for seed in range(1, seeds + 1)]
        print(
            f"| {loss} | {rates[loss]:g} | "
            + " | ".join(_spread([row[name] for row in mine]) for name in FIGURES)
            + " |"
        )


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


if __name__ == "__main__":
    main()
