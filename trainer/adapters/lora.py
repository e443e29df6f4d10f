"""Low-rank adapters on a base that stays as it is; `use_dora` and `use_rslora` are LoRA with a switch (arXiv 2402.09353, 2312.03732)."""

from __future__ import annotations

import torch
from peft import LoraConfig

from swarm.settings import StreamSettings


def quantisation(compute_dtype: torch.dtype) -> None:
    return None


def config(settings: StreamSettings) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # peft says int; it only divides by it
        lora_dropout=settings.lora_dropout,
        target_modules=settings.lora_target_modules,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        bias="none",
    )
