"""`engine: trl` is TRL: a stream has the losses and the adapter that a script of TRL, PEFT and transformers makes of the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.data.prepared import TRAIN, read_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STEPS = 6


def by_hand(settings: StreamSettings, prepared: Path, folder: Path, lora: dict[str, Any]) -> tuple[list[float], Path]:
    """What a fine-tuner's own script does; returns the losses of its steps and the folder of its adapter."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    set_seed(settings.seed)
    base = AutoModelForCausalLM.from_pretrained(settings.base_model, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **lora)
    )
    rows = [{"input_ids": row.ids, "labels": row.labels} for row in read_rows(prepared / TRAIN)]
    how = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", logging_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, max_steps=STEPS, save_strategy="no", seed=settings.seed,
        per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=5e-3, lr_scheduler_type="linear", warmup_steps=0,
        max_grad_norm=1.0, weight_decay=0.0, optim="adamw_torch_fused", disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=how, train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(settings.base_model),
    )  # fmt: skip
    trainer.train()
    model.save_pretrained(folder)
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], folder


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"lora_dropout": 0.1}], ids=str)
def test_losses_and_adapter_are_those_of_a_script_of_trl(
    bench: Bench, settings: Callable[..., StreamSettings], tmp_path: Path, lora: dict[str, Any]
) -> None:
    chosen = settings(
        engine="trl", max_steps=STEPS, gradient_accumulation_steps=2, lora_r=4, lora_alpha=8, seed=7, **lora
    )
    prepared = bench.do("prepare", chosen)["prepared"].path
    trained = bench.do("train", chosen, prepared=prepared)["trained"]
    ours = [row.figures["loss"] for row in bench.metric_rows() if row.kind == "train"]
    theirs, folder = by_hand(chosen, bench.place.run_folder / prepared, tmp_path / "script", lora)
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs, abs=2e-6)
    mine = load_file(bench.place.run_folder / trained.path / "adapter_model.safetensors")
    script = load_file(folder / "adapter_model.safetensors")
    assert mine.keys() == script.keys()
    print(f"losses differ by at most {max(abs(a - b) for a, b in zip(ours, theirs, strict=True)):.1e}")
    assert all(torch.equal(mine[name], script[name]) for name in mine), "not bitwise equal"
