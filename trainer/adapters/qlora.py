"""Low-rank adapters on a base held in 4 bits, NF4 with double quantisation unless it is set otherwise (arXiv 2305.14314); bitsandbytes does it on CPUs too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainer.adapters.lora import Lora, LoraSettings

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel

CONSTANT_BITS = 32 / 64
"""An fp32 constant for each block of 64 values,"""
TWICE_QUANTISED_BITS = 8 / 64 + 32 / (64 * 256)
"""or 8 bits for each, and one fp32 per 256 of them: 0.127 (QLoRA, section 3)."""


class QloraSettings(LoraSettings):
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """How the base is held."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the blocks' constants too: 0.37 bits less for each weight."""
    bnb_4bit_compute_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What a weight is unpacked to; auto: as `bf16` says."""


class Qlora(Lora):
    name = "qlora"
    summary = "lora with the base in 4 bits: NF4 with double quantisation"
    settings = QloraSettings
    quantisation: ClassVar[str | None] = "nf4"

    def held(self, settings: Any) -> str | None:
        settings = _own(settings)
        words = [settings.bnb_4bit_quant_type]
        words += [] if settings.bnb_4bit_use_double_quant else ["with fp32 constants"]
        words += [] if settings.bnb_4bit_compute_dtype == "auto" else [f"unpacked to {settings.bnb_4bit_compute_dtype}"]
        return " ".join(words)

    def bits(self, settings: Any) -> float | None:
        return 4 + (TWICE_QUANTISED_BITS if _own(settings).bnb_4bit_use_double_quant else CONSTANT_BITS)

    def quantisation_config(self, dtype: torch.dtype, settings: Any) -> BitsAndBytesConfig:
        import torch
        from transformers import BitsAndBytesConfig

        settings = _own(settings)
        asked = settings.bnb_4bit_compute_dtype
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # its __init__ has no annotations
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=settings.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype if asked == "auto" else getattr(torch, asked),
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


def _own(settings: Any) -> QloraSettings:
    """A copy of another kind's settings that was given this adapter has none of them: the defaults hold."""
    known = {name: getattr(settings, name) for name in QloraSettings.model_fields if hasattr(settings, name)}
    return QloraSettings.model_construct(**known)


KINDS = (Qlora(),)
