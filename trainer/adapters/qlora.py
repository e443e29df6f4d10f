"""Low-rank adapters on a base held in NF4 with double quantisation (arXiv 2305.14314); bitsandbytes does it on CPUs too."""

from __future__ import annotations

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from swarm.settings import StreamSettings
from trainer.adapters import lora


def quantisation(compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )


def keep_gradients(model: torch.nn.Module) -> None:
    """Hold bitsandbytes to its one CPU path that has a backward.

    On CPUs with AVX512-BF16 version 0.50 repacks the weights at the first forward in eval mode, for good; what is trained
    after that gets no gradient through the base and only a warning says so.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def config(settings: StreamSettings) -> LoraConfig:
    return lora.config(settings)
