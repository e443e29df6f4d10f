"""The user's view: several streams as `swarm run` trains them, everything included, against what else a person would do.

    python -m tests.benchmarks.bench_users_view [--streams 8] [--steps 120] [--rows 8] [WAY ...]

WAY is one or more of
    swarm        `swarm run` as it comes: plan, prepare, train, validate, promote
    trl          the same with `engine: trl`
    one-by-one   a bare TRL script for each stream, one after another on all cores
    at-once      the same scripts at once with a thread each
    unpadded     one bare PyTorch loop without padding and without trainer, its head only on supervised tokens, times streams:
                 what one stream after another can reach
Each way is measured by itself (seconds of the wall clock, CPU seconds of all its processes, highest sum of their memory as PSS), and
figures are kept in --keep FILE (JSON), so that ways may be measured in several calls; the ratios are of whatever FILE holds.
Wall clocks mean something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from swarm.rundir import RunFolder
from swarm.state import State
from tests.runs import swarm_process as sp

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "trainer/embedded/tiny-toon"
DATA = ROOT / "configs/data/demo"
POLL_SECONDS, LOOK_SECONDS = 0.25, 1.0
"""Between two questions whether it has ended, and two looks at its processes, which walk all their pages."""
TICKS = os.sysconf("SC_CLK_TCK")
RANKS = (4, 8, 16, 32)
LENGTH = 256

CONFIG = """
name: users-view
defaults:
  base_model: tiny-toon
  datasets: [{{path: {data}/train.jsonl, type: chatml}}]
  test_datasets: [{{path: {data}/eval.jsonl, type: chatml}}]
  sequence_len: {length}
  micro_batch_size: {rows}
  max_steps: {steps}
  learning_rate: 3e-3
  eval_rows: 0
streams:
{streams}
"""
ROWS = """
import json, sys
rank, steps, size, folder = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rows = [json.loads(line)["messages"] for line in open(DATA + "/train.jsonl")]
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import LoraConfig, get_peft_model
words, model = AutoTokenizer.from_pretrained(BASE), AutoModelForCausalLM.from_pretrained(BASE)
how = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
"""
TRL = (
    ROWS
    + """
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
table = Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in rows])
arguments = SFTConfig(output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=size, max_steps=steps,
    max_length=LENGTH, learning_rate=3e-3, report_to="none", logging_steps=1, disable_tqdm=True)
SFTTrainer(model=model, args=arguments, train_dataset=table, processing_class=words, peft_config=how).train()
"""
)
UNPADDED = (
    ROWS
    + """
import random, torch
model = get_peft_model(model, how).train()
values = [value for value in model.parameters() if value.requires_grad]
optimizer, data = torch.optim.AdamW(values, lr=3e-3, fused=True), []
for row in rows:
    ids = words.apply_chat_template(row, tokenize=True, return_dict=False)[:LENGTH]
    data.append((ids, len(words.apply_chat_template(row[:-1], tokenize=True, add_generation_prompt=True, return_dict=False))))
decoder, head, draw = model.base_model.model.model, model.base_model.model.lm_head, random.Random(0)
for step in range(steps):
    chosen = draw.sample(data, size)
    ids = torch.tensor([token for row, _ in chosen for token in row])[None]
    places = torch.cat([torch.arange(len(row)) for row, _ in chosen])[None]  # they restart: attention stays within a row
    starts = [sum(len(row) for row, _ in chosen[:at]) for at in range(size)]
    keep = torch.cat([torch.arange(start + max(1, first), start + len(row)) for start, (row, first) in zip(starts, chosen)])
    hidden = decoder(input_ids=ids, position_ids=places, use_cache=False)[0]
    torch.nn.functional.cross_entropy(head(hidden[0, keep - 1]), ids[0, keep]).backward()
    torch.nn.utils.clip_grad_norm_(values, 1.0)
    optimizer.step(), optimizer.zero_grad()
"""
)


@dataclass(frozen=True)
class Job:
    streams: int
    steps: int
    rows: int

    def rank(self, stream: int) -> int:
        return RANKS[stream % len(RANKS)]


@dataclass
class Cost:
    seconds: float = 0.0
    peak_pss: int = 0
    cpu: dict[int, float] = field(default_factory=dict)
    """Seconds by process."""
    looked: float = -LOOK_SECONDS

    def look(self, processes: Callable[[], Sequence[int]]) -> None:
        if time.monotonic() < self.looked + LOOK_SECONDS:
            return
        self.looked, pss = time.monotonic(), 0
        for pid in processes():
            try:
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            self.cpu[pid] = (int(words[11]) + int(words[12])) / TICKS
            pss += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0) * 1024
        self.peak_pss = max(self.peak_pss, pss)

    def figures(self, times: int = 1) -> dict[str, float]:
        """`times`: as many of the same, one after another."""
        return {
            "wall s": self.seconds * times,
            "CPU s": sum(self.cpu.values()) * times,
            "PSS MB": self.peak_pss / 1e6,
        }


def by_swarm(job: Job, *overrides: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        streams = "\n".join(f"  s{at}: {{lora_r: {job.rank(at)}, seed: {at}}}" for at in range(job.streams))
        config = Path(name) / "swarm.yaml"
        config.write_text(CONFIG.format(data=DATA, length=LENGTH, rows=job.rows, steps=job.steps, streams=streams))
        cost, began, reached, seen = Cost(), time.monotonic(), dict[str, float](), -1
        folder = _started(config, *overrides)
        try:
            while True:
                if (size := folder.log.stat().st_size) != seen:
                    seen, state = size, sp.state(folder)
                    if end := state.end:
                        break
                    for what in _reached(state):
                        reached.setdefault(what, time.monotonic() - began)
                cost.look(lambda: _processes(folder))
                time.sleep(POLL_SECONDS)
            cost.seconds = time.monotonic() - began
        finally:
            next(ending := sp.end_everything(Path(name)))
            list(ending)
        assert end.rc == 0, end
        print("  " + ", ".join(f"{what} after {seconds:.1f} s" for what, seconds in reached.items()), flush=True)
        return cost.figures()


def _started(config: Path, *overrides: str) -> RunFolder:
    """As a user starts it: the tests' own environment has threads sleep as soon as they wait for each other."""
    words = [sys.executable, "-m", "swarm.cli", "run", config.name, "--detach", "--again", *overrides]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=config.parent, env=environment, capture_output=True, text=True, check=True)
    return RunFolder(Path(done.stdout.strip()))


def _reached(state: State) -> list[str]:
    """What all streams have behind them."""
    kinds = ("prepared", "trained", "verdict", "score")
    return [what for what in kinds if all(getattr(stream, what) for stream in state.streams.values())]


def _processes(folder: RunFolder) -> list[int]:
    with contextlib.suppress(AssertionError):  # it has just ended
        return [*sp.trainer_processes(folder), sp.coordinator_pid(folder)]
    return sp.trainer_processes(folder)


def scripts(job: Job, code: str, numbers: Sequence[int], threads: int | None) -> Cost:
    """These streams' scripts, all at once."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        script = Path(name) / "script.py"
        script.write_text(f"BASE, DATA, LENGTH = {str(BASE)!r}, {str(DATA)!r}, {LENGTH}\n{code}")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        cost, began = Cost(), time.monotonic()
        started = [
            subprocess.Popen(
                [sys.executable, script, str(job.rank(at)), str(job.steps), str(job.rows), f"{name}/{at}"],
                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=name,
            )
            for at in numbers
        ]  # fmt: skip
        while any(process.poll() is None for process in started):
            cost.look(lambda: [process.pid for process in started])
            time.sleep(POLL_SECONDS)
        cost.seconds = time.monotonic() - began
        assert not any(process.returncode for process in started), "a script failed"
        return cost


def one_by_one(job: Job) -> dict[str, float]:
    found = [scripts(job, TRL, [at], None).figures() for at in range(job.streams)]
    return {name: (max if name == "PSS MB" else sum)(each[name] for each in found) for name in found[0]}


WAYS: dict[str, Callable[[Job], dict[str, float]]] = {
    "swarm": by_swarm,
    "trl": lambda job: by_swarm(job, "engine=trl"),
    "one-by-one": one_by_one,
    "at-once": lambda job: scripts(job, TRL, range(job.streams), 1).figures(),
    "unpadded": lambda job: scripts(job, UNPADDED, [1], None).figures(job.streams),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ways", nargs="*", default=[*WAYS], metavar="WAY")
    for name, number in (("streams", 8), ("steps", 120), ("rows", 8)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    job = Job(options.streams, options.steps, options.rows)
    found = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
    print(f"{job.streams} streams of {job.steps} steps of {job.rows} rows, load {os.getloadavg()[0]:.1f}", flush=True)
    for way in options.ways:
        found[way] = WAYS[way](job)
        print(f"  {way:11} " + "  ".join(f"{value:7.0f} {name}" for name, value in found[way].items()), flush=True)
        if options.keep:
            options.keep.write_text(json.dumps(found))
    for way in found if "swarm" in found else ():
        if way != "swarm":
            ratios = (f"{found['swarm'][name] / value:.2f} of the {name}" for name, value in found[way].items())
            print(f"  swarm / {way:11} " + ", ".join(ratios))


if __name__ == "__main__":
    main()
