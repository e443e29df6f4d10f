"""Table D23: optimizers of a stream of two models, each at its own best learning rate, over seeds, interleaved.

python tests/benchmarks/bench_duo.py [SEEDS [STEPS]]        # 3 and 30 by default; prints a Markdown table

First each arm is trained with each rate, and the one with the lowest held-out loss is taken; then with other seeds, one training at a time and in
turns.  The time of evaluation is the control: optimizers do not change it, so that a table in which it differs compares two states of the machine and is void.
`hybrid` differs from `split` for what is shared, which a stream of two models has none of.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

DATA = Path(__file__).parents[2] / "configs/data"
ARMS: dict[str, dict[str, Any]] = {
    "AdamW / AdamW": {"optimizer": "adamw"},
    "Lion / Lion": {"optimizer": "lion"},
    "split": {"optimizer": "duo", "duo_mode": "split"},
    "blend": {"optimizer": "duo", "duo_mode": "blend"},
    "hybrid": {"optimizer": "duo", "duo_mode": "hybrid"},
}
RATES = [3e-4, 1e-3, 3e-3, 1e-2]
ROWS = 8
"""Of a step, of each model."""
MODELS = {
    "encoder": {
        "objective": "classify",
        "labels": ["garden", "kitchen", "desk"],
        "datasets": [{"path": str(DATA / "style/topics.jsonl"), "type": "labelled"}],
        "test_datasets": [{"path": str(DATA / "style/eval_topics.jsonl"), "type": "labelled"}],
    },
    "decoder": {
        "objective": "sft",
        "datasets": [{"path": str(DATA / "demo/train.jsonl"), "type": "chatml", "limit": 400}],
        "test_datasets": [{"path": str(DATA / "demo/eval.jsonl"), "type": "chatml", "limit": 40}],
    },
}
FIGURES = (
    "train loss", "held-out loss", "train s", "samples/s", "steps/s", "eval s", "evals/s", "peak gradient", "last gradient", "last rate",
)  # fmt: skip
VOID_ABOVE = 0.1
"""By which share the arms' times of evaluation may differ."""


def run(folder: Path, name: str, streams: dict[str, dict[str, Any]], steps: int) -> dict[str, dict[str, float]]:
    """The figures of each stream."""
    defaults = {
        "method": "duo", "base_model": "tiny-toon", "sequence_len": 512, "micro_batch_size": ROWS, "max_steps": steps, "save_steps": steps,
        "eval_steps": steps, "save": "last", "eval_rows": 0, "metrics": [], "models": MODELS,
    }  # fmt: skip
    config = {
        "name": name, "defaults": defaults, "streams": streams, "placement": {"cpu_streams": 1}, "promotion": {"must_beat": "nothing"},
    }  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "swarm.cli", "run", f"{name}.yaml", "--json", "--plain"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    [place] = folder.glob(f"runs/{name}*/streams")
    return {stream: figures(place / stream) for stream in streams}


def figures(place: Path) -> dict[str, float]:
    times = json.loads((place / "time_metrics.json").read_text(encoding="utf-8"))
    rows = list(csv.DictReader((place / "train_log.csv").read_text(encoding="utf-8").splitlines()))
    trained, judged = ([row for row in rows if row["kind"] == kind] for kind in ("train", "eval"))
    norms = [float(row["grad_norm"]) for row in trained]
    evaluating = times["eval_seconds"]
    seconds = times["loop_seconds"] - evaluating
    found = (
        float(trained[-1]["loss"]), float(judged[-1]["eval_loss"]), seconds, 2 * ROWS * len(trained) / seconds, len(trained) / seconds,
        evaluating, len(judged) / evaluating, max(norms), norms[-1], float(trained[-1]["learning_rate"]),
    )  # fmt: skip
    return dict(zip(FIGURES, found, strict=True))


def best_rates(folder: Path, steps: int) -> dict[str, float]:
    """By arm."""
    tried = {
        f"r{index}.a{number}": {**settings, "learning_rate": rate}
        for index, rate in enumerate(RATES)
        for number, settings in enumerate(ARMS.values())
    }
    found = run(folder, "rates", tried, steps)
    return {
        arm: min(RATES, key=lambda rate: found[f"r{RATES.index(rate)}.a{number}"]["held-out loss"])
        for number, arm in enumerate(ARMS)
    }


def main() -> None:
    seeds, steps = (int(given) for given in (*sys.argv[1:], *("3", "30")[len(sys.argv) - 1 :]))
    with TemporaryDirectory() as place:
        rates = best_rates(Path(place), steps)
        streams = {
            f"s{seed}.a{number}": {**settings, "learning_rate": rates[arm], "seed": seed}
            for seed in range(1, seeds + 1)
            for number, (arm, settings) in enumerate(ARMS.items())
        }
        found = run(Path(place), "seeds", streams, steps)
    print(f"| optimizer | rate | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 2)}")
    evaluations = []
    for number, arm in enumerate(ARMS):
        mine = [found[f"s{seed}.a{number}"] for seed in range(1, seeds + 1)]
        evaluations.append(fmean(row["eval s"] for row in mine))
        print(f"| {arm} | {rates[arm]:g} | {' | '.join(_spread([row[name] for row in mine]) for name in FIGURES)} |")
    if (spread := max(evaluations) / min(evaluations) - 1) > VOID_ABOVE:
        print(f"\nVoid: the time of evaluation, which no optimizer changes, differs by {spread:.0%}.")


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.3g} ± {stdev(values) if len(values) > 1 else 0:.2g}"


if __name__ == "__main__":
    main()
