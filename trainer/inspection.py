"""The facts of a base, read from a model object, which may be on the meta device: it has shapes there and no weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from swarm.facts import BaseFacts, Module
from trainer.families import classifier_of, is_encoder

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PLAIN_LINEARS = frozenset({"Linear", "Conv1D", "Linear4bit"})
"""Classes that are known to return one tensor."""
USED_RAW = dict.fromkeys(("mamba", "falcon_mamba", "jamba"), ("dt_proj",))
"""Layers whose matrix the family's own forward pass takes (`self.dt_proj.weight @ ...` in transformers 5.23): they are never called."""
POSITIONS = ("max_position_embeddings", "max_seq_len", "n_positions")
"""What families' configs call the bound of a sequence; most have the first name, MPT and DBRX the second."""


def facts_of_model(model: PreTrainedModel) -> BaseFacts:
    text = model.config.get_text_config()
    head, table = _head(model), cast("Any", model.get_input_embeddings())
    heads = _largest(text, "num_attention_heads") or 1
    hidden_size = int(text.hidden_size)
    return BaseFacts(
        hidden_size=hidden_size,
        layers=int(text.num_hidden_layers),
        heads=heads,
        head_size=_largest(text, "head_dim") or hidden_size // heads,
        intermediate_size=_largest(text, "intermediate_size") or 4 * hidden_size,
        embedding_rows=int(table.weight.shape[0]),
        parameters=sum(value.numel() for value in model.parameters()),
        modules=tuple(_modules(model)),
        tensors=tuple(_tensors(model)),
        buffers=tuple(name for name, _ in model.named_buffers()),
        experts_parameters=sum(
            value.numel() for name, value in model.named_parameters() if value.dim() == 3 and ".experts." in name
        ),
        head=_name_of(model, head),
        head_tensors=tuple(_of_head(model)),
        aliases=tuple(_aliases(model)),
        family=str(text.model_type),
        tied=head is not None and head.weight is table.weight,
        context_tokens=positions_of(model),
        attention=_attention(model, text),
        quantisation=_quantisation(model.config),
        reads_both_ways=is_encoder(model.config),
        classifier=classifier_of(model.config) if head is None else (),
    )


def _largest(config: Any, name: str) -> int:
    """Of a size that some families state for each layer; 0 where none is stated."""
    by_layer = name in (getattr(config, "per_layer_attributes", None) or ())
    found = (getattr(layer, name, None) for layer in (config.per_layer_config if by_layer else [config]))
    return max((size for size in found if isinstance(size, int)), default=0)


def positions_of(model: PreTrainedModel) -> int | None:
    """Tokens that it can read at once; None where nothing bounds them."""
    text = model.config.get_text_config()
    bound = next((int(bound) for name in POSITIONS if (bound := getattr(text, name, None) or 0) > 0), None)
    return bound and bound - _first_position(model)


def _first_position(model: PreTrainedModel) -> int:
    """RoBERTa and its kin give a row's first token the position behind that of pads, so that fewer are left than their tables hold."""
    import torch

    tables = (module for name, module in model.named_modules() if name.endswith(".position_embeddings"))
    pads = (table.padding_idx for table in tables if isinstance(table, torch.nn.Embedding))
    return next((pad + 1 for pad in pads if pad is not None), 0)


def _attention(model: PreTrainedModel, text: Any) -> Literal["sdpa", "eager"] | None:
    """What transformers takes where nothing is asked for."""
    if not _largest(text, "num_attention_heads"):
        return None
    return "sdpa" if model._supports_sdpa else "eager"


def _quantisation(config: Any) -> str | None:
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    quantisation = dict(stored if isinstance(stored, dict) else stored.to_dict())
    if quantisation.get("load_in_4bit") or quantisation.get("_load_in_4bit"):
        return str(quantisation.get("bnb_4bit_quant_type", "fp4"))
    return str(quantisation.get("quant_method", "unknown"))


def _modules(model: PreTrainedModel) -> Iterator[Module]:
    """The matrices of the language model; a model that also sees or hears has others, which text does not reach."""
    import torch

    inside, head, kept = _inside(model), _name_of(model, _head(model)), _kept_whole(model)
    for name, module in model.named_modules():
        if name != head and not (name.startswith(inside) and ".pooler" not in name):
            continue
        if isinstance(module, torch.nn.Embedding):
            yield Module(name, "embedding", module.num_embeddings, module.embedding_dim, quantised=False)
        elif shape := _linear_shape(module):
            called = name.rpartition(".")[2] not in USED_RAW.get(model.config.get_text_config().model_type, ())
            adaptable = called and _can_be_wrapped(model, name, module, shape[1])
            yield Module(name, *shape, quantised=_is_replaced(name, module, kept), adaptable=adaptable, called=called)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    inside, head, stored = _inside(model), _name_of(model, _head(model)), model.state_dict().keys()
    buffers = ((name, value) for name, value in model.named_buffers() if name in stored)
    for name, value in (*model.named_parameters(), *buffers):
        own_head = name.startswith(f"{head}.") and not is_encoder(model.config)
        if own_head or (name.startswith(inside) and ".pooler" not in name):
            yield name, tuple(value.shape)


def _of_head(model: PreTrainedModel) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Under all names; an encoder's head is what stands outside of it."""
    inside, head = _inside(model), _name_of(model, _head(model))
    for name, value in model.named_parameters(remove_duplicate=False):
        outside = is_encoder(model.config) and not name.startswith(inside)
        if outside or name.startswith(f"{head}."):
            yield name, tuple(value.shape)


def _aliases(model: PreTrainedModel) -> Iterator[str]:
    first = {name for name, _ in model.named_parameters()}
    return (name for name, _ in model.named_parameters(remove_duplicate=False) if name not in first)


def _inside(model: PreTrainedModel) -> str:
    """How names of its language model begin."""
    if model.config.get_text_config() is not model.config:
        return _name_of(model, cast("Any", model).get_decoder()) + "."
    if is_encoder(model.config) or _head(model) is None:  # heads are others with each thing that it is asked for
        return model.base_model_prefix + "."
    return ""


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


def _is_replaced(name: str, module: torch.nn.Module, kept: list[str]) -> bool:
    """As `replace_with_bnb_linear` of transformers decides: a subclass of Linear stays as it is."""
    from transformers.quantizers.quantizers_utils import should_convert_module

    return type(module).__name__ in PLAIN_LINEARS and bool(should_convert_module(name, kept))


def _can_be_wrapped(model: PreTrainedModel, name: str, module: torch.nn.Module, inputs: int) -> bool:
    """PEFT adds to what a layer returns: a router of experts may return several things, some kernels of Mamba go around it.

    In some mixtures PEFT takes the names of other layers for those of experts, as older versions of transformers had them.
    """
    import torch
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    as_named = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(as_named, model, None)
        if name not in (as_named.target_modules or ()):
            return False
        _check_lora_target_modules_mamba(LoraConfig(), model, name.rpartition(".")[2])
        if type(module).__name__ in PLAIN_LINEARS:
            return True
        weight = cast("torch.Tensor", module.weight)
        with torch.no_grad():
            made = module(torch.zeros(1, 2, inputs, device=weight.device, dtype=weight.dtype))
    except (RuntimeError, TypeError, ValueError):
        return False
    return isinstance(made, torch.Tensor)


def _head(model: PreTrainedModel) -> Any:
    return cast("Any", model).get_output_embeddings()


def _name_of(model: torch.nn.Module, wanted: torch.nn.Module | None) -> str:
    return next((name for name, module in model.named_modules() if module is wanted), "")
