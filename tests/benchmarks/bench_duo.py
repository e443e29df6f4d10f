"""Table D23: optimizers of a stream of two models, each at its own best learning rate, over seeds, interleaved.

python -m tests.benchmarks.bench_duo FILE --minutes 9     # goes on where FILE ends; prints a Markdown table once FILE has all
python -m tests.benchmarks.bench_duo FILE --base FOLDER --device gpu0 --rates 1e-5 3e-5 1e-4 3e-4 --set models.decoder.adapter=qlora

Times are CPU time of one thread, and on a GPU wall-clock time until it has done all its work.  The decoder's rows are conversations: take a base
with a chat template.

First each arm is trained with each rate, and the one with the lowest held-out loss is taken; then with other seeds, one training at a time and in
turns.  The time of evaluation is the control: optimizers do not change it, so that a table in which it differs compares two states of the machine and is void.
`hybrid` differs from `split` for what is shared, which a stream of two models has none of.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

from swarm.config import load
from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.device import place_of, set_environment

DATA = Path(__file__).parents[2] / "configs/data"
ARMS: dict[str, dict[str, Any]] = {
    "AdamW / AdamW": {"optimizer": "adamw"},
    "Lion / Lion": {"optimizer": "lion"},
    "Muon / Muon": {"optimizer": "muon"},
    "split": {"optimizer": "duo", "duo_mode": "split"},
    "blend": {"optimizer": "duo", "duo_mode": "blend"},
    "hybrid": {"optimizer": "duo", "duo_mode": "hybrid"},
}
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
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
Figures = dict[str, float]


class Asked(NamedTuple):
    """What is trained, where, and with which rates."""

    base: str = "tiny-toon"
    device: str = "cpu"
    rates: Sequence[float] = RATES
    changes: Sequence[str] = ()
    """Settings of the stream, as `swarm run` takes them: they win."""

    def as_line(self) -> dict[str, Any]:
        """The first line of a file of results, which are comparable with none of another base or device."""
        return {"base": self.base, "device": self.device, "rates": list(self.rates), "changes": list(self.changes)}


def settings(folder: Path, trial: Trial, asked: Asked) -> StreamSettings:
    arm, rate, seed = trial
    stream = {**COMMON, **ARMS[arm], "base_model": asked.base, "learning_rate": rate, "seed": seed}
    path = folder / "duo.yaml"
    path.write_text(json.dumps({"name": "duo", "streams": {"one": stream}}), encoding="utf-8")
    return load(path, list(asked.changes), cwd=Path()).run.streams["one"]


def seconds_of(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def timed_calls(name: str, device: str) -> Iterator[list[float]]:
    """Seconds of each call of a method of `Pair`."""
    from trainer.engines.pair import Pair  # torch is imported with it, once the environment is set

    plain: Callable[[Pair], Any] = getattr(Pair, name)
    found: list[float] = []

    def timed(pair: Pair) -> Any:
        began = seconds_of(device)
        try:
            return plain(pair)
        finally:
            found.append(seconds_of(device) - began)

    with mock.patch.object(Pair, name, timed):
        yield found


def measured(bench: Bench, folder: Path, trial: Trial, asked: Asked) -> Figures:
    """One training."""
    with timed_calls("stepped", asked.device) as training, timed_calls("held_out", asked.device) as evaluating:
        bench.trained(settings(folder, trial, asked))
    log = bench.place.stream_folder("one") / "train_log.csv"
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
    steps, judged = ([row for row in rows if row["kind"] == kind] for kind in ("train", "eval"))
    norms, seconds = [float(row["grad_norm"]) for row in steps], sum(training)
    found = (
        float(steps[-1]["loss"]), float(judged[-1]["eval_loss"]), seconds, 2 * ROWS * len(steps) / seconds, len(steps) / seconds,
        sum(evaluating), len(evaluating) / sum(evaluating), max(norms), norms[-1], float(steps[-1]["learning_rate"]),
    )  # fmt: skip
    return dict(zip(FIGURES, found, strict=True))


def known(file: Path, asked: Asked) -> dict[Trial, Figures]:
    """What a file of results has, which begins with what was asked."""
    if not file.exists():
        file.write_text(json.dumps(asked.as_line()) + "\n", encoding="utf-8")
    first, *lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    if first != asked.as_line():
        raise UserError(str(file), f"its results are of {first}", "ask for the same again, or name another file")
    return {(row["arm"], row["rate"], row["seed"]): row["figures"] for row in lines}


def best_rates(found: dict[Trial, Figures], rates: Sequence[float]) -> dict[str, float]:
    """By arm."""
    return {arm: min(rates, key=lambda rate: found[arm, rate, 0]["held-out loss"]) for arm in ARMS}


def missing(found: dict[Trial, Figures], rates: Sequence[float]) -> list[Trial]:
    """In the order in which they are to be trained; those with other seeds once all rates were tried."""
    tried = [(arm, rate, 0) for rate in rates for arm in ARMS]
    if all(trial in found for trial in tried):
        best = best_rates(found, rates)
        tried = [(arm, best[arm], seed) for seed in range(1, SEEDS + 1) for arm in ARMS]
    return [trial for trial in tried if trial not in found]


def work(file: Path, minutes: float, asked: Asked) -> dict[Trial, Figures]:
    began, found = time.monotonic(), known(file, asked)
    with TemporaryDirectory() as place, file.open("a", encoding="utf-8") as log:
        bench = Bench(Path(place) / "run")
        bench.place = place_of(asked.device, bench.place.run_folder)
        while (trials := missing(found, asked.rates)) and time.monotonic() - began < 60 * minutes:
            arm, rate, seed = trial = trials[0]
            found[trial] = measured(bench, Path(place), trial, asked)
            log.write(json.dumps({"arm": arm, "rate": rate, "seed": seed, "figures": found[trial]}) + "\n")
            log.flush()
    return found


def table(found: dict[Trial, Figures], asked: Asked) -> str:
    best, evaluations = best_rates(found, asked.rates), []
    lines = [f"| optimizer | rate | {' | '.join(FIGURES)} |", f"|{'---|' * (len(FIGURES) + 2)}"]
    for arm in ARMS:
        mine = [found[arm, best[arm], seed] for seed in range(1, SEEDS + 1)]
        evaluations.append(fmean(row["eval s"] for row in mine))
        cells = " | ".join(_spread([row[name] for row in mine]) for name in FIGURES)
        end = ", the end of the range" if best[arm] in (asked.rates[0], asked.rates[-1]) else ""
        lines.append(f"| {arm} | {best[arm]:g}{end} | {cells} |")
    spread = max(evaluations) / min(evaluations) - 1
    word = "Void: the" if spread > VOID_ABOVE else "The"
    what = " ".join([asked.base, "on", asked.device, *asked.changes])
    return "\n".join(
        [f"{what}:", "", *lines, "", f"{word} time of evaluation, which no optimizer changes, differs by {spread:.0%}."]
    )


def _spread(values: list[float]) -> str:
    return f"{fmean(values):.3g} ± {stdev(values):.2g}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "bench_duo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--base", default="tiny-toon", help="of both models: a folder or a name")
    parser.add_argument("--device", default="cpu", help="cpu, or gpu0")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="rising")
    parser.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE", help="settings of the stream")
    given = parser.parse_args(argv)
    set_environment(given.device)
    asked = Asked(given.base, given.device, given.rates, given.set)
    try:
        found = work(given.file, given.minutes, asked)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    trials = missing(found, asked.rates)
    print(f"{len(trials)} trainings at least are to come" if trials else table(found, asked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
