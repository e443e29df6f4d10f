"""Adapters of streams on one frozen base: made as PEFT makes them, put into the stacks of the layers, read and written by PEFT's names."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import _find_minimal_target_modules, check_target_module_exists
from peft.utils.constants import MIN_TARGET_MODULES_FOR_OPTIMIZATION
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from swarm.errors import UserError
from trainer.adapters.targets import matched
from trainer.loop.dequantised import Dequantise, is_cached, is_packed, whole
from trainer.loop.layer import Pair, StackedLinear, shape_of, weight_of
from trainer.loop.plan import Plan

PREFIX = "base_model.model."
"""PEFT's names of adapter tensors begin with it."""


class Adapter:
    """What one stream trains: its pairs by the name of the layer that they stand on."""

    def __init__(self, config: LoraConfig, pairs: dict[str, Pair]) -> None:
        self.config = config
        self.pairs = pairs

    @property
    def is_dora(self) -> bool:
        return bool(self.config.use_dora)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """By the names that PEFT saves; B transposed."""
        for name, pair in self.pairs.items():
            yield f"{PREFIX}{name}.lora_A.weight", pair.a
            yield f"{PREFIX}{name}.lora_B.weight", pair.b
            if pair.magnitude is not None:
                yield f"{PREFIX}{name}.lora_magnitude_vector", pair.magnitude

    def parameters(self) -> list[nn.Parameter]:
        return [value for pair in self.pairs.values() for value in pair.parameters()]

    def detach(self) -> None:
        """Out of the stacks: its tensors are its own again, without gradients."""
        for value in self.parameters():
            value.data, value.grad = value.data.clone(), None

    def state_dict(self) -> dict[str, Tensor]:
        """As PEFT saves it.  Copies in main memory: the loop may go on while they are written."""
        return {
            name: as_in_peft(name, value.detach()).to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in self.named_parameters()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        mine = dict(self.named_parameters())
        if mine.keys() != state.keys():
            odd = sorted(mine.keys() ^ state.keys())
            raise UserError(
                "adapter",
                f"its tensors are not this stream's ({odd[0]} is on one side only)",
                "use the adapter's own settings",
            )
        for name, value in mine.items():
            value.copy_(as_in_peft(name, state[name]))


def as_in_peft(name: str, value: Tensor) -> Tensor:
    """From a tensor in memory to PEFT's form, and back."""
    return value.T if name.endswith("lora_B.weight") and value.dim() == 2 else value


class Layers:
    """The linear layers of one base, each under a StackedLinear once a stream adapts it."""

    def __init__(self, model: PreTrainedModel, plan: Plan, dequantise: Dequantise = "step") -> None:
        self.model = model
        self.cached = is_cached(dequantise, model)
        """Whether 4-bit layers that are adapted keep their whole matrices beside them."""
        self.plan = plan
        self.dtype = torch.float64 if model.dtype is torch.float64 else torch.float32
        self.device = model.device
        self.names = [name for name, _ in model.named_modules()]
        """Of all modules of the bare base."""
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.linear = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }
        """What may be adapted, by name: every linear layer but the head.  A 4-bit layer is an nn.Linear too."""
        self.stacked: dict[str, StackedLinear] = {}

    def adapter(self, config: LoraConfig, seed: int) -> Adapter:
        """An untrained one, with the values that PEFT draws after `torch.manual_seed(seed)`.  Raises UserError where it cannot be had."""
        refuse_unfusable(config)
        names = self.targets(config)
        config = copy.deepcopy(config)
        config.fan_in_fan_out = any(isinstance(self.linear[name], Conv1D) for name in names)
        config.target_modules = self._as_peft_writes(config, names)  # type: ignore[assignment]  # PEFT makes it a set too
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Adapter(config, {name: self._pair(name, config) for name in names})

    def _as_peft_writes(self, config: LoraConfig, names: Sequence[str]) -> str | set[str]:
        """A pattern stays; a long list of names becomes the shortest list of their ends that names no other module."""
        wanted = config.target_modules
        if isinstance(wanted, str) and wanted != "all-linear":
            return wanted
        named = list(names) if isinstance(wanted, str) else list(wanted or ())
        ends = tuple(f".{name}" for name in named)
        others = [name for name in self.names if name not in named and not name.endswith(ends)]
        if len(named) < MIN_TARGET_MODULES_FOR_OPTIMIZATION:
            return set(named)
        return min(set(named), _find_minimal_target_modules(named, others), key=len)

    def targets(self, config: LoraConfig) -> list[str]:
        if config.target_modules == "all-linear":
            return list(self.linear)
        names = [name for name in self.linear if check_target_module_exists(config, name)]
        if not names:
            raise UserError("lora_target_modules", f"{config.target_modules} matches no linear layer", "use all-linear")
        return names

    def _pair(self, name: str, config: LoraConfig) -> Pair:
        base = self.linear[name]
        out_features, in_features = shape_of(base)
        rank = matched(config.rank_pattern or {}, name) or config.r
        alpha = matched(config.alpha_pattern or {}, name) or config.lora_alpha
        a = nn.Linear(in_features, rank, bias=False)  # it and the next draw numbers that PEFT draws too
        nn.Linear(rank, out_features, bias=False)
        nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        return Pair(
            a.weight.detach().to(self.device, self.dtype),
            torch.zeros(rank, out_features, device=self.device, dtype=self.dtype),
            self._norm(name) if config.use_dora else None,
            alpha / (math.sqrt(rank) if config.use_rslora else rank),
            config.lora_dropout,
        )

    def blank(self, adapter: Adapter) -> Adapter:
        """One of the same shapes that adds nothing."""
        return Adapter(
            adapter.config,
            {
                name: Pair(
                    torch.zeros_like(pair.a),
                    torch.zeros_like(pair.b),
                    None if pair.magnitude is None else self._norm(name),
                    pair.scale,
                    pair.dropout,
                )
                for name, pair in adapter.pairs.items()
            },
        )

    def _norm(self, name: str) -> Tensor:
        norm: Tensor = torch.linalg.norm(weight_of(self.linear[name]).to(self.dtype), dim=1)  # (out,)
        return norm

    def stack(self, adapters: Sequence[Adapter]) -> None:
        """Gives each adapter its slot, in this order.  Those of DoRA come last."""
        for name in {name: None for adapter in adapters for name in adapter.pairs}:
            if name not in self.stacked:
                base = self.linear[name]
                frozen = whole(base, self.model.dtype) if self.cached and is_packed(base) else base
                self.stacked[name] = StackedLinear(frozen, self.plan, number_of(name))
                self.model.set_submodule(name, self.stacked[name])
        for name, layer in self.stacked.items():
            layer.stack([adapter.pairs.get(name) for adapter in adapters], self.dtype, self.device)

    def renorm(self, slot: int) -> None:
        for layer in self.stacked.values():
            layer.renorm(slot)

    def remove(self) -> None:
        """The base as it was."""
        for name in self.stacked:
            self.model.set_submodule(name, self.linear[name])
        self.stacked.clear()


def number_of(layer: str) -> int:
    """What keys the dropout of a layer: its name in the base, so that it does not matter which other layers are adapted."""
    return zlib.crc32(layer.encode())


def refuse_unfusable(config: LoraConfig) -> None:
    """Raises UserError with the reason where an adapter changes more than linear layers' outputs, or the base itself."""
    reasons = {
        "modules_to_save": config.modules_to_save,
        "bias": config.bias != "none" or config.lora_bias,
        "target_parameters": config.target_parameters,
        "trainable_token_indices": config.trainable_token_indices,
        "layer_replication": config.layer_replication,
        f"init_lora_weights: {config.init_lora_weights}": config.init_lora_weights is not True,
    }
    for key, set_ in reasons.items():
        if set_:
            raise UserError(key, "the shared engine has no adapter of this kind", "set engine: trl")
