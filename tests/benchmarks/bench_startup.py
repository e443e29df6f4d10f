"""Seconds from the command to the end of the first training step: one stream through `swarm run` against one bare TRL script, interleaved.

python tests/benchmarks/bench_startup.py [ROUNDS]      the bases' facts are cached by a first run that does not count
"""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASE = Path("trainer/embedded/tiny-toon").resolve()
BARE = """
import json, os, time
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer
class First(TrainerCallback):
    def on_step_end(self, args, state, control, **more):
        print(f"FIRST {time.time()}", flush=True)
        control.should_training_stop = True
rows = [json.loads(line) for line in open("rows.jsonl")]
model = get_peft_model(AutoModelForCausalLM.from_pretrained(BASE), LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
how = SFTConfig(output_dir="out", use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=2, max_steps=2, max_length=128, report_to="none")
SFTTrainer(model=model, args=how, train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(BASE), callbacks=[First()]).train()
"""
CONFIG = """
name: startup
defaults: {base_model: %s, datasets: [{path: rows.jsonl, type: prompt_completion}], sequence_len: 128, max_steps: 2, val_set_size: 8, eval_rows: 0}
streams: {one: {%s}}
"""


def bare(folder: Path) -> float:
    began = time.time()
    code = f"BASE = {str(BASE)!r}\n{BARE}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    return float(done.stdout.partition("FIRST ")[2].split()[0]) - began


def swarm(folder: Path, settings: str) -> float:
    (folder / "swarm.yaml").write_text(CONFIG % (BASE, settings))
    command = [sys.executable, "-m", "swarm.cli"]
    began = time.time()
    subprocess.run(
        [*command, "run", "swarm.yaml", "--plain", "--again"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        check=True,
    )
    rows = subprocess.run(
        [*command, "export", "--what", "metrics", "--format", "csv"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return min(float(row["time"]) for row in csv.DictReader(io.StringIO(rows.stdout)) if row["kind"] == "train") - began


def environment() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd()), "OMP_WAIT_POLICY": "PASSIVE"}


def main(rounds: int) -> None:
    ways = {"bare": lambda at: bare(at), "trl": lambda at: swarm(at, "engine: trl"), "own": lambda at: swarm(at, "")}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text(
            "".join(json.dumps({"prompt": f"double {n}", "completion": str(2 * n)}) + "\n" for n in range(60))
        )
        swarm(folder, "")
        for number in range(rounds):
            for way, measured in ways.items():
                found[way].append(measured(folder))
            print(
                f"round {number + 1}: " + ", ".join(f"{way} {values[-1]:.1f} s" for way, values in found.items()),
                flush=True,
            )
    middle = {way: statistics.median(values) for way, values in found.items()}
    print(
        f"median: bare {middle['bare']:.1f} s; swarm run with engine trl {middle['trl'] / middle['bare']:.2f}x, as it comes {middle['own'] / middle['bare']:.2f}x; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
