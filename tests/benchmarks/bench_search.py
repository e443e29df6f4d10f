"""A search of 16 trials with early exit against the same trials trained to their end, and against 16 bare TRL scripts one after another.

python tests/benchmarks/bench_search.py FOLDER [PIECE]     # pieces: whole-S, early-S, seeds-S for the search seeds S 0 to 2, and bare-0; without: all

Each piece takes some minutes and leaves FOLDER/PIECE.json; what is there is not measured again, and the table of what there is is printed.
The embedded base, 54 steps a trial at most, rungs at 6 and 18; rows that choose are not those that judge.  CPU time is that of all processes of a piece.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import stdev
from typing import Any

from swarm.config.trials import drawn
from swarm.log import Log
from swarm.rundir import RunFolder
from swarm.settings import Search
from swarm.state import State, fold

BASE = Path("trainer/embedded/tiny-toon").resolve()
DATA = Path("configs/data/style").resolve()
SEEDS, TRIALS, STEPS, ROWS, REPLICAS = 3, 16, 54, 4, 4
SPACE = {"lora_r": [2, 4, 8, 16], "learning_rate": {"low": 1e-4, "high": 3e-2, "log": True}}
DEFAULTS = {
    "base_model": str(BASE), "datasets": [{"path": str(DATA / "train.jsonl"), "type": "chatml"}],
    "sequence_len": 128, "micro_batch_size": ROWS, "max_steps": STEPS, "lr_scheduler": "constant", "eval_rows": 0, "lora_alpha": 16,
}  # fmt: skip
BARE = """
import sys
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
base, train, held, rank, rate, steps, rows = sys.argv[1:]
model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=int(rank), lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
how = SFTConfig(output_dir="out", use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=int(rows), max_steps=int(steps), learning_rate=float(rate), lr_scheduler_type="constant", max_length=128, report_to="none", save_strategy="no")
trainer = SFTTrainer(model=model, args=how, train_dataset=Dataset.from_json(train), eval_dataset=Dataset.from_json(held), processing_class=AutoTokenizer.from_pretrained(base))
trainer.train()
trainer.evaluate()
trainer.save_model("out")
"""
Found = dict[str, Any]


def trials(seed: int) -> list[dict[str, Any]]:
    return [dict(one) for one in drawn(Search.model_validate({"space": SPACE, "trials": TRIALS, "seed": seed}))]


def swarm_run(folder: Path, streams: dict[str, Any], **more: Any) -> State:
    """The state of a run after its end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = (DATA / "eval.jsonl").read_text().splitlines(keepends=True)
    for name, part in {"val": rows[::2], "held": rows[1::2]}.items():
        (folder / f"{name}.jsonl").write_text("".join(part))
    judged = {"test_datasets": [{"path": "held.jsonl", "type": "chatml"}]}
    chosen = {"val_datasets": [{"path": "val.jsonl", "type": "chatml"}]} if "halving" in more else {}
    config = {"name": "search", "defaults": {**DEFAULTS, **judged, **chosen}, "streams": streams, **more}
    promotion = {"must_beat": "nothing", "tie_break": "best"}
    (folder / "swarm.yaml").write_text(json.dumps({**config, "promotion": promotion}))
    command = [sys.executable, "-m", "swarm.cli", "run", "swarm.yaml", "--plain", "--again"]
    subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)  # fmt: skip
    [path] = (folder / "runs").iterdir()
    return fold(Log(RunFolder(path).log).entries())


def of_state(state: State) -> Found:
    reached = {
        name: stream.trained.step if stream.trained else max((saved.step for saved in stream.checkpoints), default=0)
        for name, stream in state.streams.items()
    }
    losses = {name: stream.figures["eval_loss"] for name, stream in state.streams.items() if stream.score}
    return {"losses": losses, "steps": reached, "kept": state.promoted.ref if state.promoted else None}


def whole(folder: Path, seed: int) -> Found:
    """All trials to their end, in one run."""
    search = {"space": SPACE, "trials": TRIALS, "seed": seed}
    return of_state(swarm_run(folder, {"w": {"search": search, "save_steps": STEPS}}))


def early(folder: Path, seed: int) -> Found:
    search = {"space": SPACE, "trials": TRIALS, "seed": seed}
    streams = {"w": {"search": search, "eval_steps": 6, "save_steps": 6}}
    return of_state(swarm_run(folder, streams, halving={"first_step": 6, "reduction": 3}))


def seeds(folder: Path, seed: int) -> Found:
    """The best of the 16 with other seeds."""
    losses = piece_of(folder.parent, f"whole-{seed}")["losses"]
    best = min(losses, key=losses.get)
    own = trials(seed)[int(best.removeprefix("w.t")) - 1]
    return of_state(swarm_run(folder, {f"s{n}": {**own, "seed": n + 1, "save_steps": STEPS} for n in range(REPLICAS)}))


def bare(folder: Path, seed: int) -> Found:
    folder.mkdir(parents=True, exist_ok=True)
    for one in trials(seed):
        words = [BASE, DATA / "train.jsonl", DATA / "eval.jsonl", one["lora_r"], one["learning_rate"], STEPS, ROWS]
        command = [sys.executable, "-c", BARE, *map(str, words)]
        subprocess.run(command, cwd=folder, env=environment(), capture_output=True, check=True)
    return {}


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd()), "OMP_WAIT_POLICY": "PASSIVE"}


PIECES = {"bare-0": (bare, 0)} | {
    f"{name}-{seed}": (work, seed)
    for seed in range(SEEDS)
    for name, work in (("whole", whole), ("early", early), ("seeds", seeds))
}
"""Bare scripts take as long whatever the ranks and rates are: once is enough."""


def measured(folder: Path, piece: str) -> Found:
    """With wall and CPU seconds of the piece; a coordinator outlives the command that started it, and is waited for here."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    work, seed = PIECES[piece]
    began, before = time.monotonic(), _cpu_seconds()
    found = work(folder / piece, seed)
    wall = time.monotonic() - began
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return {**found, "wall": wall, "cpu": _cpu_seconds() - before, "load": os.getloadavg()[0]}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def read(folder: Path, piece: str) -> Found:
    return dict(json.loads((folder / f"{piece}.json").read_text()))


def piece_of(folder: Path, piece: str) -> Found:
    """Measured now where it is not there."""
    if not (folder / f"{piece}.json").exists():
        (folder / f"{piece}.json").write_text(json.dumps(measured(folder, piece)))
        print(piece, "is measured", flush=True)
    return read(folder, piece)


def table(folder: Path) -> None:
    """Of the seeds that are measured."""
    print("seed  kept   its loss  best of 16  spread  samples saved  wall s (x bare)   CPU s (x bare)  load")
    trl = read(folder, "bare-0") if (folder / "bare-0.json").exists() else {"wall": math.nan, "cpu": math.nan}
    for seed in range(SEEDS):
        if not all((folder / f"{name}-{seed}.json").exists() for name in ("whole", "early", "seeds")):
            continue
        every, few, again = (read(folder, f"{name}-{seed}") for name in ("whole", "early", "seeds"))
        best, kept = min(every["losses"].values()), few["losses"][few["kept"]]
        saved = 1 - sum(few["steps"].values()) / sum(every["steps"].values())
        print(
            f"{seed:>4}  {few['kept']:<6} {kept:>8.4f}  {best:>10.4f}  {stdev(again['losses'].values()):>6.4f}  {saved:>13.0%}  "
            f"{few['wall']:>6.0f} ({few['wall'] / trl['wall']:.2f})   {few['cpu']:>6.0f} ({few['cpu'] / trl['cpu']:.2f})   {few['load']:.1f}"
        )
    print(f"bare: {trl['wall']:.0f} s, {trl['cpu']:.0f} s of CPU")


def main(folder: Path, wanted: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for piece in wanted or PIECES:
        piece_of(folder.resolve(), piece)
    table(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
