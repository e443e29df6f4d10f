"""Measures the demo's four kinds of stream on the embedded base: seconds per step and held-out exact match; it changes no file.

python tests/benchmarks/demo_settings.py                     # four processes of one thread at a time, seeds 1 2 3
python tests/benchmarks/demo_settings.py --seeds 1 --steps 120 --kinds lora-r8 dora-r8
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Kind:
    rank: int
    alpha: int
    learning_rate: float
    dora: bool = False
    quantized: bool = False
    steps: int = 160
    batch_rows: int = 8


KINDS = {
    "lora-r8": Kind(rank=8, alpha=16, learning_rate=4e-3),
    "lora-r32": Kind(rank=32, alpha=64, learning_rate=2e-3),
    "dora-r8": Kind(rank=8, alpha=16, learning_rate=4e-3, dora=True),
    "qlora-r8": Kind(rank=8, alpha=16, learning_rate=4e-3, quantized=True),
}


def prepared(tokenizer: Any, path: Path) -> list[dict[str, list[int]]]:
    """Rows as ids and labels: only the answer's tokens are supervised."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        given = tokenizer.apply_chat_template(
            json.loads(line)["messages"], return_dict=True, return_assistant_tokens_mask=True
        )
        ids, masks = given["input_ids"], given["assistant_masks"]
        labels = [token if mask else -100 for token, mask in zip(ids, masks, strict=True)]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def loaded(folder: Path, kind: Kind) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if not kind.quantized:
        return AutoModelForCausalLM.from_pretrained(folder)
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=four_bit, device_map={"": "cpu"})
    for layer in model.modules():
        # On CPUs with AVX512-BF16 bitsandbytes 0.50 repacks a layer at its first forward in eval mode, for good, and the
        # repacked form passes no gradient on: training after an evaluation then learns nothing, without an error.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    return model


def one_stream(folder: Path, name: str, kind: Kind, seed: int) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from trainer.embedded.demo_data import FOLDER
    from trainer.embedded.measure import exact_match

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    lines = (FOLDER / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [((messages := json.loads(line)["messages"])[:-1], messages[-1]["content"]) for line in lines]
    model = loaded(folder, kind)
    base = exact_match(model, tokenizer, turns)
    with TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(prepared(tokenizer, FOLDER / "train.jsonl")),
            peft_config=LoraConfig(
                r=kind.rank,
                lora_alpha=kind.alpha,
                use_dora=kind.dora,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            args=SFTConfig(
                output_dir=scratch,
                max_steps=kind.steps,
                per_device_train_batch_size=kind.batch_rows,
                learning_rate=kind.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=0.05,
                max_length=512,
                seed=seed,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                save_strategy="no",
                logging_steps=5,
                disable_tqdm=True,
            ),
        )
        started, started_cpu = time.monotonic(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - started_cpu
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    started = time.monotonic()
    tuned = exact_match(trainer.model.eval(), tokenizer, turns)
    return {
        "kind": name, "seed": seed, "base_exact_match": base, "exact_match": tuned, "first_loss": losses[0], "last_loss": losses[-1],
        "train_seconds": round(seconds, 1), "cpu_seconds_per_step": round(cpu_seconds / kind.steps, 3),
        "seconds_per_step": round(seconds / kind.steps, 3), "evaluation_seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def side_by_side(arguments: argparse.Namespace, seed: int) -> None:
    """All kinds at the same time, each a process of one thread, as the demo runs them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, __file__, "--model", str(arguments.model), "--seeds", str(seed)]
    for key, value in (("--steps", arguments.steps), ("--rate", arguments.rate), ("--alpha", arguments.alpha)):
        command += [] if value is None else [key, str(value)]
    started = time.monotonic()
    streams = [
        subprocess.Popen(
            [*command, "--alone", kind], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for kind in arguments.kinds
    ]
    for stream in streams:
        out, errors = stream.communicate()
        print(out.strip().splitlines()[-1] if stream.returncode == 0 else errors[-2000:], flush=True)
    print(f"seed {seed}: {time.monotonic() - started:.0f} s for {len(streams)} streams", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "trainer" / "embedded" / "tiny-toon")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, help="instead of the kind's own")
    parser.add_argument("--rate", type=float, help="learning rate instead of the kind's own")
    parser.add_argument("--alpha", type=int, help="instead of the kind's own")
    parser.add_argument("--alone", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone is None:
        for seed in arguments.seeds:
            side_by_side(arguments, seed)
        return
    kind = KINDS[arguments.alone]
    kind = replace(
        kind,
        steps=arguments.steps or kind.steps,
        learning_rate=arguments.rate or kind.learning_rate,
        alpha=arguments.alpha or kind.alpha,
    )
    print(json.dumps(one_stream(arguments.model, arguments.alone, kind, arguments.seeds[0])))


if __name__ == "__main__":
    main()
