"""The facts of a base, read from a model object: one on the meta device, which has shapes and no weights, or a loaded one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from swarm.facts import BaseFacts, Module

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def facts_of_model(model: PreTrainedModel) -> BaseFacts:
    text = model.config.get_text_config()
    head, table = _head(model), cast("Any", model.get_input_embeddings())
    heads = int(getattr(text, "num_attention_heads", None) or 1)
    hidden_size = int(text.hidden_size)
    return BaseFacts(
        hidden_size=hidden_size,
        layers=int(text.num_hidden_layers),
        heads=heads,
        head_size=int(getattr(text, "head_dim", None) or hidden_size // heads),
        intermediate_size=int(getattr(text, "intermediate_size", None) or 4 * hidden_size),
        vocabulary=int(table.weight.shape[0]),
        parameters=sum(value.numel() for value in model.parameters()),
        modules=tuple(_modules(model)),
        head=_name_of(model, head),
        tied=head is not None and head.weight is table.weight,
        context_tokens=getattr(text, "max_position_embeddings", None),
    )


def _modules(model: PreTrainedModel) -> Iterator[Module]:
    """The matrices of the language model; a model that also sees or hears has others, which text does not reach."""
    import torch

    whole, head = "", _name_of(model, _head(model))
    if model.config.get_text_config() is not model.config:
        whole = _name_of(model, cast("Any", model).get_decoder())
    kept = set(_kept_whole(model))
    for name, module in model.named_modules():
        if name == head or not whole or name.startswith(f"{whole}."):
            if isinstance(module, torch.nn.Embedding):
                yield Module(name, "embedding", module.num_embeddings, module.embedding_dim, quantised=False)
            elif shape := _linear_shape(module):
                yield Module(
                    name,
                    *shape,
                    quantised=_is_replaced(name, module, kept),
                    adaptable=_returns_one_tensor(module, shape[1]),
                )


def _linear_shape(module: torch.nn.Module) -> tuple[Literal["linear", "conv1d"], int, int] | None:
    """Kind, inputs and outputs of the layers that PEFT's `all-linear` means; None for others."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, torch.nn.Linear):
        return "linear", module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return "conv1d", int(module.weight.shape[0]), int(module.weight.shape[1])
    return None


def _kept_whole(model: PreTrainedModel) -> list[str]:
    """Names that transformers leaves in full precision when it loads in 4 bits."""
    from transformers.quantizers.base import get_keys_to_not_convert

    return [*get_keys_to_not_convert(model), *(model._keep_in_fp32_modules or ())]


def _is_replaced(name: str, module: torch.nn.Module, kept: set[str]) -> bool:
    """As `replace_with_bnb_linear` of transformers decides: a subclass of Linear stays as it is."""
    import torch
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.quantizers_utils import should_convert_module

    plain = type(module) is torch.nn.Linear or isinstance(module, Conv1D) or type(module).__name__ == "Linear4bit"
    return plain and bool(should_convert_module(name, sorted(kept)))


def _returns_one_tensor(module: torch.nn.Module, inputs: int) -> bool:
    """PEFT adds to what a layer returns; a router of experts may return several things."""
    import torch

    if type(module).__name__ in {"Linear", "Conv1D", "Linear4bit"}:
        return True
    weight = cast("torch.Tensor", module.weight)
    try:
        with torch.no_grad():
            made = module(torch.zeros(1, 2, inputs, device=weight.device, dtype=weight.dtype))
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(made, torch.Tensor)


def _head(model: PreTrainedModel) -> Any:
    return cast("Any", model).get_output_embeddings()


def _name_of(model: torch.nn.Module, wanted: torch.nn.Module | None) -> str:
    return next((name for name, module in model.named_modules() if module is wanted), "")
