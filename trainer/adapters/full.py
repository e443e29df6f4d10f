"""All weights, each module as a copy beside the frozen one: for small models, and to compare with low rank.

PEFT keeps the copies as `modules_to_save`, so that the base is still there (`disable_adapter`), and file, judging and loading are those of any adapter.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from swarm.errors import UserError
from swarm.facts import BaseFacts
from swarm.keys import Settings
from swarm.kinds import AdapterKind, Refusal, Shape
from trainer.adapters.lora import OF_PEFT, method_of

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

AGAINST_A_REFERENCE = frozenset({"dpo", "kto"})
LORA = "write `adapter: lora`"


class FullSettings(Settings):
    full_weight_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the trained weights are held; bfloat16 loses small updates without a Kahan optimizer."""
    full_modules: list[str] | None = None
    """Ends of the names of the modules that are trained, with all within them, such as `layers.3` or `lm_head`; unset: all."""


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
        left_out = {f"base_model.model.{name}" for name in (*base.buffers, *base.aliases)}
        return {name: shape for name, shape in self.tensors(base, settings).items() if name not in left_out}

    def config(self, base: BaseFacts, settings: Any) -> LoraConfig:
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        return LoraConfig(
            task_type=method_of(settings).peft_task,
            target_modules=DUMMY_TARGET_MODULES,
            modules_to_save=_modules(_trained(base, settings)),
        )

    def attach(self, model: PreTrainedModel, base: BaseFacts, settings: FullSettings) -> PeftModel:
        import torch

        with warnings.catch_warnings():  # what is tied is tied again below
            warnings.filterwarnings("ignore", "Model has `tie_word_embeddings=True`")
            made = super().attach(model, base, settings)
        if (
            base.tied
            and not method_of(settings).head(base, settings)
            and f"{_table(base)}.weight" in _trained(base, settings)
        ):
            inside = made.get_base_model()
            _copy_in(inside, base.head).weight = _copy_in(inside, _table(base)).weight
        for value in made.parameters():
            if value.requires_grad:
                value.data = value.data.to(getattr(torch, settings.full_weight_dtype))
        return made


def _trained(base: BaseFacts, settings: Any) -> dict[str, Shape]:
    """By its names in the model, with the base's own head or the method's.  Raises UserError where a name is no module's."""
    if own_head := method_of(settings).head(base, settings):
        own = {name: shape for name, shape in base.tensors if not name.startswith(f"{base.head}.")}
    else:
        own = dict(base.tensors) | dict(base.head_tensors)
    wanted = settings.full_modules
    if wanted is None:
        return own | own_head
    for name in wanted:
        if not any(_is_within(tensor, name) for tensor in own):
            fix = f"write the end of one, such as {base.linears[0].name}, or of one that holds others"
            raise UserError("full_modules", f"{name} is no module of the base", fix)
    chosen = {tensor: shape for tensor, shape in own.items() if any(_is_within(tensor, name) for name in wanted)}
    if base.tied and not own_head:  # one matrix of two names
        pair = {
            tensor: shape for tensor, shape in own.items() if tensor.rpartition(".")[0] in (base.head, _table(base))
        }
        chosen |= pair if pair.keys() & chosen.keys() else {}
    return chosen | own_head


def _is_within(tensor: str, end: str) -> bool:
    """Whether a module whose name ends so holds the tensor."""
    return f".{end}." in f".{tensor}"


def _table(base: BaseFacts) -> str:
    """The embedding that is the head's matrix as well."""
    return next(m.name for m in base.modules if m.kind == "embedding" and m.inputs == base.embedding_rows)


def _copy_in(model: Any, name: str) -> Any:
    """What is trained in the place of a module, which may stand within a larger one that was copied."""
    from peft.utils.other import ModulesToSaveWrapper

    found = model
    for part in name.split("."):
        found = getattr(found, part)
        if isinstance(found, ModulesToSaveWrapper):
            found = found.modules_to_save["default"]
    return found


def _modules(tensors: dict[str, Shape]) -> list[str]:
    """Those that hold the tensors, without what is within another one and without what PEFT adds itself."""
    holders = {name.rpartition(".")[0] for name in tensors}
    return sorted(
        name
        for name in holders
        if name.partition(".")[0] not in OF_PEFT and not any(name.startswith(f"{other}.") for other in holders)
    )


KINDS = (Full(),)
