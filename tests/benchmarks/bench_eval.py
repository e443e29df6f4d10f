"""Answers of a base and N adapters in one batch: time of 8 adapters over that of one (embedded base, demo questions).

Twice: with adapters that were trained for it, whose answers end and leave the batch, and with random ones that never end, the worst
case: nine models' answers instead of two's are 4.5 times the arithmetic, and a CPU has nothing to hide it behind.  On a CPU the time of
one thread; on a GPU wall time.

`typed`: the same as `swarm eval` typed by hand, its start, the losses of 100 rows and 64 answers included, by the wall clock.

python -m tests.benchmarks.bench_eval [ROUNDS [cuda | typed]]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from swarm.settings import StreamSettings
from tests.runs import swarm_process as sp
from trainer import bases
from trainer.judge.answers import GREEDY
from trainer.judge.measurement import examination_of
from trainer.judge.together import Together
from trainer.quiet import quieten

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "configs/data/demo"
WAY = sys.argv[2] if len(sys.argv) > 2 else "cpu"
DEVICE = "cuda" if WAY == "cuda" else "cpu"
ROWS, TOKENS, ADAPTERS = 32, 64, 8
NEVER = [0]
"""The padding token ends answers, which is to say nothing does: all are of `TOKENS` tokens."""
STREAMS = "".join(f"  s{seed}: {{seed: {seed}}}\n" for seed in range(ADAPTERS))
CONFIG = f"""
name: bench-eval
defaults:
  base_model: tiny-toon
  datasets: [{{path: {DATA}/train.jsonl, type: chatml}}]
  test_datasets: [{{path: {DATA}/eval.jsonl, type: chatml}}]
  micro_batch_size: 8
  max_steps: 60
  learning_rate: 6e-3
  eval_rows: 0
streams:
{STREAMS}"""


def base():
    folder = bases.folder_of("tiny-toon")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(DEVICE)


def seconds() -> float:
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def trained(place: Path) -> list[Path]:
    """Adapters of streams that differ in their seed."""
    (place / "swarm.yaml").write_text(CONFIG)
    folder = sp.start(place / "swarm.yaml")
    while not (end := sp.state(folder).end):
        time.sleep(0.5)
    assert end.rc == 0, end
    return [folder.stream(f"s{seed}") / "adapter" for seed in range(ADAPTERS)]


def drawn(place: Path) -> list[Path]:
    """Adapters with random values, so that no two answer alike."""
    return [_drawn(place / str(number), number) for number in range(ADAPTERS)]


def _drawn(folder: Path, number: int) -> Path:
    torch.manual_seed(number)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=8, lora_alpha=16, init_lora_weights=True)
    model = get_peft_model(base(), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    model.save_pretrained(folder)
    return folder


def ratios(folders: Sequence[Path], *, end: bool, rounds: int) -> list[float]:
    data = [{"path": str(DATA / "eval.jsonl")}]
    settings = StreamSettings.model_validate(
        {
            "base_model": "tiny-toon",
            "datasets": data,
            "test_datasets": data,
            "eval_rows": ROWS,
            "eval_max_new_tokens": TOKENS,
        }
    )
    exam, found = examination_of(settings), []
    for _ in range(rounds):
        took = {}
        for count in (1, ADAPTERS):
            together = Together(base(), folders[:count])
            began = seconds()
            together.answers(exam.asked, exam.tokenizer, exam.stops if end else NEVER, TOKENS, exam.check, GREEDY)
            took[count] = seconds() - began
        found.append(took[ADAPTERS] / took[1])
        print(
            f"  1 adapter and base {took[1]:.2f} s, 8 adapters and base {took[8]:.2f} s: {found[-1]:.2f} x", flush=True
        )
    return found


def typed(folders: Sequence[Path], *, rounds: int) -> list[float]:
    words, found = [sys.executable, "-m", "swarm.cli", "eval", "--data", str(DATA / "eval.jsonl")], []
    for number in range(rounds + 1):
        took = {}
        for count in (1, ADAPTERS):
            began = time.perf_counter()
            subprocess.run([*words, *map(str, folders[:count])], check=True, capture_output=True)
            took[count] = time.perf_counter() - began
        if number:  # the first one fills caches
            found.append(took[ADAPTERS] / took[1])
            print(f"  1 adapter {took[1]:.1f} s, 8 adapters {took[ADAPTERS]:.1f} s: {found[-1]:.2f} x", flush=True)
    return found


def main() -> None:
    quieten()
    disable_progress_bar()
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        if WAY == "typed":
            found = typed(trained(Path(name)), rounds=rounds)
            print(f"  median {statistics.median(found):.2f} x (aim: 2)")
            return
        torch.set_num_threads(1)
        for kind, made in (("never-ending", drawn), ("trained", trained)):
            print(f"{kind}:", flush=True)
            found = ratios(made(Path(name)), end=made is trained, rounds=rounds)
            print(f"  median {statistics.median(found):.2f} x (aim: 2)", flush=True)


if __name__ == "__main__":
    main()
