"""Control adapters under PEFT: the type CONTROL, which is known to `PeftModel.from_pretrained` once this module is imported.

An adapter stands beside its site as a child named `control`, and a hook adds what it makes of the site's output: no module of the base is
replaced, so that all names stay.  LoRA on linear layers of the same model is PEFT's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraLayer, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from swarm.errors import UserError
from trainer.control.forms import Form, added, begun, scale_of
from trainer.control.sites import CHILD, Site
from trainer.targets import matched

TYPE = "CONTROL"


@dataclass
class ControlConfig(LoraConfig):
    """LoRA's, and what a control adapter has besides; sites stand in `target_modules` beside the linear layers."""

    control_site: Site = field(default="mlp")
    control_adapter_type: Form = field(default="full")

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]
        self.peft_type = TYPE


@dataclass
class Steering:
    """What all sites of a model multiply with: a number for each adapter, and where it is set a sign for each row (B, 1) or token (B, T)."""

    scales: dict[str, float] = field(default_factory=dict)
    """By PEFT's names of adapters; 1 for those that it has not."""
    signs: Tensor | None = None
    neutral: Tensor | None = None
    """(B, T) Weights of |u|^2 / |x|^2; what that comes to at each site is put into `penalties`."""
    penalties: list[Tensor] = field(default_factory=list)

    def of(self, adapter: str, like: Tensor) -> Tensor | float:
        """For tokens (B, T, H)."""
        scale = self.scales.get(adapter, 1.0)
        return scale if self.signs is None else scale * self.signs.to(like).unsqueeze(-1)


class ControlSide(nn.Module, BaseTunerLayer):
    """The adapters of one site, by PEFT's names of adapters."""

    adapter_layer_names = ("lora_A", "lora_B", "lora_Q", "lora_S", "lora_dropout")
    other_param_names = ("scaling", "forms")

    def __init__(self, site: nn.Module, kind: Site, steering: Steering) -> None:
        super().__init__()
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.lora_Q, self.lora_S = nn.ParameterDict(), nn.ParameterDict()
        self.lora_dropout = nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.forms: dict[str, Form] = {}
        self.kind, self.steering = kind, steering
        self.hook = site.register_forward_hook(self._steered, with_kwargs=True)

    def add(self, adapter: str, form: Form, rank: int, scale: float, dropout: float, like: Tensor) -> None:
        first, second = (value.to(like) for value in begun(form, like.shape[0], rank))
        if form == "spectral":
            self.lora_Q[adapter], self.lora_S[adapter] = nn.Parameter(first), nn.Parameter(second)
        else:
            self.lora_A[adapter], self.lora_B[adapter] = _linear(first), _linear(second)
        self.lora_dropout[adapter] = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scaling[adapter], self.forms[adapter] = scale, form
        self.set_adapter(self.active_adapters)

    def weights(self, adapter: str) -> tuple[Tensor, Tensor]:
        if self.forms[adapter] == "spectral":
            return self.lora_Q[adapter], self.lora_S[adapter]
        a, b = cast("nn.Linear", self.lora_A[adapter]), cast("nn.Linear", self.lora_B[adapter])
        return a.weight, b.weight

    def _steered(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        """The site's output and what the active adapters add to it, each of what the site itself puts out."""
        if self.disable_adapters:
            return output
        y: Tensor = output[0] if isinstance(output, tuple) else output  # (B, T, H)
        delta = y - (given[0] if given else named["hidden_states"]) if self.kind == "block" else y
        u = torch.zeros((), device=y.device)
        for adapter in (name for name in self.active_adapters if name in self.forms):
            first, second = self.weights(adapter)
            x = self.lora_dropout[adapter](delta).to(first.dtype)
            u = u + added(self.forms[adapter], x, first, second, self.scaling[adapter], self.steering.of(adapter, x))
        if (weights := self.steering.neutral) is not None:
            share = u.square().sum(-1) / delta.square().sum(-1)  # (B, T)
            self.steering.penalties.append((weights * share).sum())
        whole = y + u  # in the adapter's precision, rounded once
        return (whole.to(y.dtype), *output[1:]) if isinstance(output, tuple) else whole.to(y.dtype)


def _linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight)
    return made


class ControlModel(LoraModel):
    """PEFT's tuner of models with control adapters."""

    tuner_layer_cls = BaseTunerLayer  # type: ignore[assignment]  # wider than LoRA's own
    """What is activated and disabled: control adapters too, not only LoRA's layers."""

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "steering", Steering())
        super().__init__(model, *args, **kwargs)

    def _create_and_replace(  # type: ignore[override]  # of sites it is given configs of its own type
        self, lora_config: ControlConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module,
        current_key: str, **others: Any,
    ) -> None:  # fmt: skip
        if isinstance(target, nn.Linear | Conv1D | LoraLayer):
            super()._create_and_replace(lora_config, adapter_name, target, target_name, parent, current_key, **others)
            return
        side = getattr(target, CHILD, None)
        if side is None:
            side = ControlSide(target, lora_config.control_site, self.steering)
            target.add_module(CHILD, side)
        rank = matched(lora_config.rank_pattern or {}, current_key) or lora_config.r
        alpha = matched(lora_config.alpha_pattern or {}, current_key) or lora_config.lora_alpha
        scale = scale_of(alpha, rank, rslora=lora_config.use_rslora)
        side.add(
            adapter_name, lora_config.control_adapter_type, rank, scale, lora_config.lora_dropout, self._like(target)
        )
        if adapter_name not in self.active_adapters:
            side.requires_grad_(False)

    def _like(self, site: nn.Module) -> Tensor:
        """(H,) Of the type and on the device that an adapter of this site has."""
        size = int(self.model.config.get_text_config().hidden_size)
        floats = (value for value in site.parameters() if value.is_floating_point())
        dtype = next((value.dtype for value in floats), torch.float32)
        return torch.empty(size, dtype=dtype, device=next(site.parameters()).device)

    def _unload_and_optionally_merge(self, merge: bool = True, *args: Any, **kwargs: Any) -> Any:
        if merge:
            what = "a control adapter changes what layers add, with a sign for each token: it is no change of the base's matrices"
            raise UserError("merge", what, "convert it first: `swarm convert`")
        for module in list(self.model.modules()):
            if isinstance(side := getattr(module, CHILD, None), ControlSide):
                side.hook.remove()
                delattr(module, CHILD)
        return super()._unload_and_optionally_merge(merge, *args, **kwargs)


def let_join(model: PeftModel, peft_type: str) -> None:
    """An adapter of the other type may come onto a model: PEFT wants all of one type, and the tuner of control adapters is LoRA's as well."""
    if {model.peft_type, peft_type} != {"LORA", TYPE}:
        return
    if not isinstance(model.base_model, ControlModel):
        object.__setattr__(model.base_model, "steering", Steering())
        model.base_model.__class__ = ControlModel
    model.peft_type = peft_type


def together(model: PeftModel, adapters: Sequence[str]) -> None:
    """All of these act at once from now on, by PEFT's names of them."""
    model.set_adapter(adapters[0], inference_mode=True)
    cast("LoraModel", model.base_model).set_adapter(list(adapters), inference_mode=True)


def steering_of(model: nn.Module) -> Steering | None:
    """That of a PeftModel with control adapters; None for any other model."""
    tuner = getattr(model, "base_model", None)
    return tuner.steering if isinstance(tuner, ControlModel) else None


@contextmanager
def signed(model: nn.Module, signs: Tensor | None) -> Iterator[None]:
    """Rows (B, 1) or tokens (B, T) of the forward passes within have these signs; nothing happens to models without control adapters."""
    steering = steering_of(model)
    if steering is None:
        yield
        return
    before, steering.signs = steering.signs, signs
    try:
        yield
    finally:
        steering.signs = before


for _mapping, _value in (
    (PEFT_TYPE_TO_CONFIG_MAPPING, ControlConfig), (PEFT_TYPE_TO_TUNER_MAPPING, ControlModel), (PEFT_TYPE_TO_PREFIX_MAPPING, ControlModel.prefix),
):  # fmt: skip
    cast("dict[str, Any]", _mapping)[TYPE] = _value
