"""Answers of a base and N adapters in one batch: time of 8 adapters over that of one (embedded base, demo questions).

On a CPU the time of one thread: it computes nine models' answers instead of two's, 4.5 times the arithmetic, and the batch saves the
rest.  On a GPU wall time: a step of so few rows costs what it costs to start it.

python tests/benchmarks/bench_eval.py [ROUNDS [cuda]]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from swarm.settings import StreamSettings
from trainer import bases
from trainer.judge.answers import GREEDY
from trainer.judge.measurement import examination_of
from trainer.judge.together import Together
from trainer.quiet import quieten

ROWS, TOKENS = 32, 64
NEVER = [0]
"""The padding token ends answers, which is to say nothing does: all are of `TOKENS` tokens."""


DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"


def base():
    folder = bases.folder_of("tiny-toon")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(DEVICE)


def seconds() -> float:
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def saved(folder: Path, number: int) -> Path:
    """An adapter with random values, so that no two answer alike."""
    torch.manual_seed(number)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=8, lora_alpha=16, init_lora_weights=True)
    model = get_peft_model(base(), config)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    model.save_pretrained(folder / str(number))
    return folder / str(number)


def main() -> None:
    quieten()
    torch.set_num_threads(1)
    data = [{"path": "configs/data/demo/eval.jsonl"}]
    settings = StreamSettings.model_validate(
        {
            "base_model": "tiny-toon",
            "datasets": data,
            "test_datasets": data,
            "eval_rows": ROWS,
            "eval_max_new_tokens": TOKENS,
        }
    )
    exam = examination_of(settings)
    with tempfile.TemporaryDirectory() as place:
        folders = [saved(Path(place), number) for number in range(8)]
        ratios = []
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
            took = {}
            for count in (1, 8):
                together = Together(base(), folders[:count])
                began = seconds()
                together.answers(exam.asked, exam.tokenizer, NEVER, TOKENS, exam.check, GREEDY)
                took[count] = seconds() - began
            ratios.append(took[8] / took[1])
            print(
                f"1 adapter and base {took[1]:.2f} s, 8 adapters and base {took[8]:.2f} s: {ratios[-1]:.2f} x",
                flush=True,
            )
    print(f"median {statistics.median(ratios):.2f} x (aim: 2)")


if __name__ == "__main__":
    main()
