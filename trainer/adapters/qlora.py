"""Low-rank adapters on a base held in NF4 with double quantisation (arXiv 2305.14314); bitsandbytes does it on CPUs too."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.lora import Lora

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel


class Qlora(Lora):
    name = "qlora"
    summary = "lora with the base in NF4 with double quantisation"
    quantisation: ClassVar[str | None] = "nf4"

    def quantisation_config(self, dtype: torch.dtype) -> BitsAndBytesConfig:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )

    def after_loading(self, model: PreTrainedModel, *, on_gpu: bool) -> None:
        """Hold bitsandbytes to its one CPU path that has a backward.

        On CPUs with AVX512-BF16 version 0.50 repacks the weights at the first forward in eval mode, for good; what is
        trained after that gets no gradient through the base and only a warning says so.
        """
        from bitsandbytes.nn.modules import Linear4bit

        for module in model.modules():
            if isinstance(module, Linear4bit) and not on_gpu:
                module.support_avx512bf16_for_cpu = False


KINDS = (Qlora(),)
