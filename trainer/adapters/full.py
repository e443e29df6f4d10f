"""All weights, each module as a copy beside the frozen one: for small models, and to compare with low rank.

PEFT keeps the copies as `modules_to_save`, so that the base is still there (`disable_adapter`), and file, judging and loading are those of any adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.keys import Settings
from swarm.kinds import AdapterKind, Refusal, Shape
from trainer.adapters.lora import OF_PEFT, method_of

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

TIED_BY_PEFT = frozenset({"embed_tokens", "lm_head"})
"""Where an embedding or a head has one of these names PEFT trains both as the one matrix that they are."""
AGAINST_A_REFERENCE = frozenset({"dpo", "kto"})
LORA = "write `adapter: lora`"


class FullSettings(Settings):
    full_weight_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the trained weights are held; bfloat16 loses small updates without a Kahan optimizer."""


class Full(AdapterKind[FullSettings]):
    name = "full"
    summary = "a trained copy of all weights, for small models"
    settings = FullSettings

    def refusal(self, settings: Any) -> Refusal | None:
        if settings.weight_decay:
            return Refusal("weight_decay", "it would shrink norms and biases too", f"write 0, or {LORA[6:]}")
        if settings.method in AGAINST_A_REFERENCE:
            what = f"TRL copies the adapter for the reference of {settings.method}, and whole modules are frozen by it"
            return Refusal("adapter", what, f"{LORA}, or `method: orpo`, which has no reference")
        return None

    def details(self, settings: FullSettings) -> str:
        return settings.full_weight_dtype

    def tensors(self, base: BaseFacts, settings: Any) -> dict[str, Shape]:
        return {f"base_model.model.{name}": shape for name, shape in _trained(base, settings).items()}

    def trained(self, base: BaseFacts, settings: Any) -> dict[str, Shape]:
        others = {*base.buffers, *([f"{base.head}.weight"] if _is_tied(base, settings) else [])}
        left_out = {f"base_model.model.{name}" for name in others}
        return {name: shape for name, shape in self.tensors(base, settings).items() if name not in left_out}

    def config(self, base: BaseFacts, settings: Any) -> LoraConfig:
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        return LoraConfig(
            task_type=method_of(settings).peft_task,
            target_modules=DUMMY_TARGET_MODULES,
            modules_to_save=_modules(_trained(base, settings)),
            ensure_weight_tying=_is_tied(base, settings),
        )

    def attach(self, model: PreTrainedModel, base: BaseFacts, settings: FullSettings) -> PeftModel:
        import torch

        made = super().attach(model, base, settings)
        for value in made.parameters():
            if value.requires_grad:
                value.data = value.data.to(getattr(torch, settings.full_weight_dtype))
        return made


def _trained(base: BaseFacts, settings: Any) -> dict[str, Shape]:
    """By its names in the model.  Raises UserError where an embedding is the head as well and PEFT would train them apart."""
    own_head = method_of(settings).head(base, settings)
    tensors = {
        name: shape for name, shape in base.tensors if not (own_head and name.startswith(f"{base.head}."))
    } | own_head
    if base.tied and not own_head:
        table = next(m for m in base.modules if m.kind == "embedding" and m.inputs == base.embedding_rows)
        if base.reads_both_ways or not {name.rpartition(".")[2] for name in (table.name, base.head)} & TIED_BY_PEFT:
            what = f"{table.name} is the matrix of the head too, and PEFT would train the two apart"
            raise UserError("adapter", what, LORA)
        tensors[f"{base.head}.weight"] = (table.inputs, table.outputs)
    return tensors


def _is_tied(base: BaseFacts, settings: Any) -> bool:
    return base.tied and not method_of(settings).head(base, settings)


def _modules(tensors: dict[str, Shape]) -> list[str]:
    """Those that hold the tensors, without what is within another one and without what PEFT adds itself."""
    holders = {name.rpartition(".")[0] for name in tensors}
    return sorted(
        name
        for name in holders
        if name.partition(".")[0] not in OF_PEFT and not any(name.startswith(f"{other}.") for other in holders)
    )


KINDS = (Full(),)
