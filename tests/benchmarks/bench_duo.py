"""Table D23: optimizers of a stream of two models, each at its own best learning rate, over seeds, interleaved; times are CPU time of one thread.

python -m tests.benchmarks.bench_duo FILE [MINUTES]     # goes on where FILE ends, for 9 minutes by default; prints a Markdown table once FILE has all

First each arm is trained with each rate, and the one with the lowest held-out loss is taken; then with other seeds, one training at a time and in
turns.  The time of evaluation is the control: optimizers do not change it, so that a table in which it differs compares two states of the machine and is void.
`hybrid` differs from `split` for what is shared, which a stream of two models has none of.
"""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from swarm.config import load
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.engines.pair import Pair

DATA = Path(__file__).parents[2] / "configs/data"
ARMS: dict[str, dict[str, Any]] = {
    "AdamW / AdamW": {"optimizer": "adamw"},
    "Lion / Lion": {"optimizer": "lion"},
    "Muon / Muon": {"optimizer": "muon"},
    "split": {"optimizer": "duo", "duo_mode": "split"},
    "blend": {"optimizer": "duo", "duo_mode": "blend"},
    "hybrid": {"optimizer": "duo", "duo_mode": "hybrid"},
}
RATES = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2]
SEEDS, STEPS, ROWS = 3, 30, 8
"""ROWS: of a step, of each model."""
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
COMMON = {
    "method": "duo", "base_model": "tiny-toon", "sequence_len": 512, "micro_batch_size": ROWS, "max_steps": STEPS, "save_steps": STEPS,
    "eval_steps": STEPS // 2, "save": "last", "eval_rows": 0, "metrics": [], "models": MODELS,
}  # fmt: skip
FIGURES = (
    "train loss", "held-out loss", "train s", "samples/s", "steps/s", "eval s", "evals/s", "peak gradient", "last gradient", "last rate",
)  # fmt: skip
VOID_ABOVE = 0.1
"""By which share the arms' times of evaluation may differ."""
Trial = tuple[str, float, int]
"""Arm, rate and seed."""


def settings(folder: Path, trial: Trial) -> StreamSettings:
    arm, rate, seed = trial
    stream = {**COMMON, **ARMS[arm], "learning_rate": rate, "seed": seed}
    path = folder / "duo.yaml"
    path.write_text(json.dumps({"name": "duo", "streams": {"one": stream}}), encoding="utf-8")
    return load(path, [], cwd=folder).run.streams["one"]


@contextmanager
def cpu_seconds(name: str) -> Iterator[list[float]]:
    """Of each call of a method of `Pair`."""
    plain: Callable[[Pair], Any] = getattr(Pair, name)
    found: list[float] = []

    def timed(pair: Pair) -> Any:
        began = time.process_time()
        try:
            return plain(pair)
        finally:
            found.append(time.process_time() - began)

    with mock.patch.object(Pair, name, timed):
        yield found


def measured(bench: Bench, folder: Path, trial: Trial) -> dict[str, float]:
    """One training."""
    with cpu_seconds("stepped") as training, cpu_seconds("held_out") as evaluating:
        bench.trained(settings(folder, trial))
    log = bench.place.stream_folder("one") / "train_log.csv"
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
    steps, judged = ([row for row in rows if row["kind"] == kind] for kind in ("train", "eval"))
    norms, seconds = [float(row["grad_norm"]) for row in steps], sum(training)
    found = (
        float(steps[-1]["loss"]), float(judged[-1]["eval_loss"]), seconds, 2 * ROWS * len(steps) / seconds, len(steps) / seconds,
        sum(evaluating), len(evaluating) / sum(evaluating), max(norms), norms[-1], float(steps[-1]["learning_rate"]),
    )  # fmt: skip
    return dict(zip(FIGURES, found, strict=True))


def known(file: Path) -> dict[Trial, dict[str, float]]:
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {(row["arm"], row["rate"], row["seed"]): row["figures"] for row in map(json.loads, lines)}


def best_rates(found: dict[Trial, dict[str, float]]) -> dict[str, float]:
    """By arm."""
    return {arm: min(RATES, key=lambda rate: found[arm, rate, 0]["held-out loss"]) for arm in ARMS}


def missing(found: dict[Trial, dict[str, float]]) -> list[Trial]:
    """In the order in which they are to be trained; those with other seeds once all rates were tried."""
    tried = [(arm, rate, 0) for rate in RATES for arm in ARMS]
    if all(trial in found for trial in tried):
        best = best_rates(found)
        tried = [(arm, best[arm], seed) for seed in range(1, SEEDS + 1) for arm in ARMS]
    return [trial for trial in tried if trial not in found]


def work(file: Path, minutes: float) -> None:
    began, found = time.monotonic(), known(file)
    with TemporaryDirectory() as place, file.open("a", encoding="utf-8") as log:
        bench = Bench(Path(place) / "run")
        while (trials := missing(found)) and time.monotonic() - began < 60 * minutes:
            arm, rate, seed = trial = trials[0]
            found[trial] = measured(bench, Path(place), trial)
            log.write(json.dumps({"arm": arm, "rate": rate, "seed": seed, "figures": found[trial]}) + "\n")
            log.flush()


def table(found: dict[Trial, dict[str, float]]) -> str:
    best, evaluations = best_rates(found), []
    lines = [f"| optimizer | rate | {' | '.join(FIGURES)} |", f"|{'---|' * (len(FIGURES) + 2)}"]
    for arm in ARMS:
        mine = [found[arm, best[arm], seed] for seed in range(1, SEEDS + 1)]
        evaluations.append(fmean(row["eval s"] for row in mine))
        cells = " | ".join(_spread([row[name] for row in mine]) for name in FIGURES)
        end = ", the end of the range" if best[arm] in (RATES[0], RATES[-1]) else ""
        lines.append(f"| {arm} | {best[arm]:g}{end} | {cells} |")
    spread = max(evaluations) / min(evaluations) - 1
    word = "Void: the" if spread > VOID_ABOVE else "The"
    return "\n".join([*lines, "", f"{word} time of evaluation, which no optimizer changes, differs by {spread:.0%}."])


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.3g} ± {stdev(values):.2g}"


def main() -> None:
    file, minutes = Path(sys.argv[1]), float((*sys.argv[2:], "9")[0])
    work(file, minutes)
    found = known(file)
    print(f"{len(trials)} trainings at least are to come" if (trials := missing(found)) else table(found))


if __name__ == "__main__":
    main()
