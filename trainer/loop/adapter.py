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
from trainer.control.forms import begun, scale_of
from trainer.control.sites import CHILD, Site
from trainer.control.tuner import ControlConfig
from trainer.loop.dequantised import Dequantise, is_cached, is_packed, weight_of, whole
from trainer.loop.layer import Pair, StackedLinear, shape_of
from trainer.loop.plan import Plan
from trainer.loop.site import StackedSite
from trainer.targets import matched

Fixed = tuple[Tensor, Tensor]
"""Rows of A and of B."""
PREFIX = "base_model.model."
"""PEFT's names of adapter tensors begin with it."""


class Adapter:
    """What one stream trains: its pairs by the name of the layer that they stand on.

    `config` is that of its file, where what is fixed of a pair stands with what is trained.
    """

    def __init__(self, config: LoraConfig, pairs: dict[str, Pair]) -> None:
        self.config = config
        self.pairs = pairs

    @property
    def is_dora(self) -> bool:
        return bool(self.config.use_dora)

    @property
    def is_on_start(self) -> bool:
        """It begins on another adapter."""
        return any(pair.is_on_start for pair in self.pairs.values())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """By the names that PEFT saves; B and Q transposed."""
        for name, pair in self.pairs.items():
            for tensor, value in zip(pair.names, (pair.a, pair.b), strict=True):
                yield f"{PREFIX}{name}.{tensor}", value
            if pair.magnitude is not None:
                yield f"{PREFIX}{name}.lora_magnitude_vector", pair.magnitude

    def parameters(self) -> list[nn.Parameter]:
        return [value for pair in self.pairs.values() for value in pair.parameters()]

    def detach(self) -> None:
        """Out of the stacks: its tensors are its own again, without gradients."""
        for value in self.parameters():
            value.data, value.grad = value.data.clone(), None

    def named_tensors(self) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
        """All of its file by name, each as the parts that stand one below the other."""
        fixed = {f"{PREFIX}{name}": pair.fixed for name, pair in self.pairs.items()}
        for name, value in self.named_parameters():
            of_layer = fixed[name.rpartition(".lora_")[0]]
            if of_layer is None or name.endswith("magnitude_vector"):
                yield name, (value.detach(),)
            else:
                yield name, (value.detach(), of_layer["lora_B" in name])

    def state_dict(self) -> dict[str, Tensor]:
        """As PEFT saves it.  Copies in main memory: the loop may go on while they are written."""
        return {
            name: as_in_peft(name, torch.cat(parts) if len(parts) > 1 else parts[0]).to(
                "cpu", copy=True, memory_format=torch.contiguous_format
            )
            for name, parts in self.named_tensors()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """What is fixed is read too: another machine may compute it a little differently."""
        mine = dict(self.named_tensors())
        if mine.keys() != state.keys():
            odd = sorted(mine.keys() ^ state.keys())
            raise UserError(
                "adapter",
                f"its tensors are not this stream's ({odd[0]} is on one side only)",
                "use the adapter's own settings",
            )
        for name, parts in mine.items():
            kept = torch.split(as_in_peft(name, state[name]), [len(part) for part in parts])
            if self.is_on_start and len(parts) > 1 and not torch.equal(parts[1].cpu(), kept[1]):
                what = "is not the adapter on which this training began"
                raise UserError("start_adapter", what, "put it back as it was, or start a new run")
            for part, rows in zip(parts, kept, strict=True):
                part.copy_(rows)


def as_in_peft(name: str, value: Tensor) -> Tensor:
    """From a tensor in memory to PEFT's form, and back."""
    return value.T if name.endswith(("lora_B.weight", "lora_Q")) and value.dim() == 2 else value


class Layers:
    """The linear layers of one base, each under a StackedLinear once a stream adapts it."""

    def __init__(self, model: PreTrainedModel, plan: Plan, dequantise: Dequantise = "step") -> None:
        self.model = model
        self.cached = is_cached(dequantise, model)
        """Whether 4-bit layers that are adapted keep their whole matrices beside them."""
        self.plan = plan
        self.dtype = torch.float64 if model.dtype is torch.float64 else torch.float32
        self.device = model.device
        self.size = int(model.config.get_text_config().hidden_size)
        self.names = [name for name, _ in model.named_modules()]
        """Of all modules of the bare base."""
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.linear = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        }
        """What may be adapted, by name: every linear layer but the head.  A 4-bit layer is an nn.Linear too."""
        self.stacked: dict[str, StackedLinear | StackedSite] = {}

    def adapter(
        self, config: LoraConfig, seed: int, filed: LoraConfig | None = None, below: Mapping[str, Fixed] | None = None
    ) -> Adapter:
        """An untrained one, with the values that PEFT draws after `torch.manual_seed(seed)`.  Raises UserError where it cannot be had.

        PiSSA and OLoRA take their first product out of the base in PEFT.  Here the base is shared: the product is subtracted
        beside it, so that the adapter's file has twice the rank and fits the base as it is.

        `filed`: the config of its file, where fixed rows make it another one; `below`: A and s B^T of the adapter on which it begins, by layer.
        """
        refuse_unfusable(config)
        kept = copy.deepcopy(filed or config)
        names, sites = self.targets(config), self.sites(config)
        kept.fan_in_fan_out = any(isinstance(self.linear[name], Conv1D) for name in names)
        kept.target_modules = self._as_peft_writes(config, names, sites)  # type: ignore[assignment]  # PEFT makes it a set too
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pairs = dict(self._pairs([*sites, *names], config, below or {}))
        return Adapter(kept, pairs)

    def _as_peft_writes(self, config: LoraConfig, names: Sequence[str], sites: Sequence[str]) -> str | set[str]:
        """A pattern stays; a long list of names becomes the shortest list of their ends that names no other module."""
        if sites:
            return {*sites, *names}
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
        if not names and not isinstance(config, ControlConfig):
            raise UserError("lora_target_modules", f"{config.target_modules} matches no linear layer", "use all-linear")
        return names

    def sites(self, config: LoraConfig) -> list[str]:
        """The modules on which control adapters stand."""
        if not isinstance(config, ControlConfig):
            return []
        return [name for name in self.names if name in (config.target_modules or ()) and name not in self.linear]

    def _pairs(
        self, names: Sequence[str], config: LoraConfig, below: Mapping[str, Fixed]
    ) -> Iterator[tuple[str, Pair]]:
        """In the order of the modules, in which PEFT draws."""
        for name in sorted(names, key=self.names.index):
            rank = matched(config.rank_pattern or {}, name) or config.r
            alpha = matched(config.alpha_pattern or {}, name) or config.lora_alpha
            scale = scale_of(alpha, rank, rslora=bool(config.use_rslora))
            if name in self.linear:
                yield name, self._pair(name, config, rank, scale, below.get(name))
            else:
                yield f"{name}.{CHILD}", self._steering(config, rank, scale)

    def _steering(self, config: LoraConfig, rank: int, scale: float) -> Pair:
        assert isinstance(config, ControlConfig)
        form = config.control_adapter_type
        first, second = (value.to(self.device, self.dtype) for value in begun(form, self.size, rank))
        a, b = (first.T, second) if form == "spectral" else (first, second.T)
        return Pair(a.contiguous(), b.contiguous(), None, scale, config.lora_dropout, form=form)

    def _pair(self, name: str, config: LoraConfig, rank: int, scale: float, below: Fixed | None) -> Pair:
        base = self.linear[name]
        out_features, in_features = shape_of(base)
        norm = self._norm(name, below) if config.use_dora else None
        if config.init_lora_weights is not True:
            weight = weight_of(base).to(self.dtype)
            first = FIRST[str(config.init_lora_weights)](weight, rank, scale)
            return Pair(*first, norm, scale, config.lora_dropout, (first[0].clone(), -first[1]))
        a = nn.Linear(in_features, rank, bias=False)  # it and the next draw numbers that PEFT draws too
        nn.Linear(rank, out_features, bias=False)
        nn.init.kaiming_uniform_(a.weight, a=math.sqrt(5))
        made = Pair(
            a.weight.detach().to(self.device, self.dtype),
            torch.zeros(rank, out_features, device=self.device, dtype=self.dtype),
            norm,
            scale,
            config.lora_dropout,
            (self._held(below[0]), self._held(below[1] / scale)) if below else None,
        )
        made.is_on_start = below is not None
        return made

    def _held(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.dtype)

    def blank(self, adapter: Adapter) -> Adapter:
        """One of the same shapes that adds nothing."""
        return Adapter(
            adapter.config,
            {
                name: Pair(
                    pair.a.new_zeros(pair.rank, *pair.a.shape[1:]),
                    pair.b.new_zeros(pair.rank, *pair.b.shape[1:]),
                    None if pair.magnitude is None else self._norm(name),
                    pair.scale,
                    pair.dropout,
                    form=pair.form,
                )
                for name, pair in adapter.pairs.items()
            },
        )

    def _norm(self, name: str, below: Fixed | None = None) -> Tensor:
        """Of each row of the base's matrix, with what the adapter below adds to it."""
        weight = weight_of(self.linear[name]).to(self.dtype)
        if below:
            a, b = map(self._held, below)
            weight = weight + b.T @ a
        norm: Tensor = torch.linalg.norm(weight, dim=1)  # (out,)
        return norm

    def stack(self, adapters: Sequence[Adapter]) -> None:
        """Gives each adapter its slot, in this order.  Those of DoRA come last."""
        for name in {name: None for adapter in adapters for name in adapter.pairs}:
            if name not in self.stacked:
                self.stacked[name] = self._placed(name)
        for name, layer in self.stacked.items():
            layer.stack([adapter.pairs.get(name) for adapter in adapters], self.dtype, self.device)

    def _placed(self, name: str) -> StackedLinear | StackedSite:
        if name not in self.linear:
            site = name.removesuffix(f".{CHILD}")
            kind: Site = "block" if site.rpartition(".")[2].isdecimal() else "mlp"
            return StackedSite(self.model.get_submodule(site), kind, self.size, self.plan, number_of(name))
        base = self.linear[name]
        frozen = whole(base, self.model.dtype) if self.cached and is_packed(base) else base
        made = StackedLinear(frozen, self.plan, number_of(name))
        self.model.set_submodule(name, made)
        return made

    def renorm(self, slot: int) -> None:
        for layer in self.stacked.values():
            layer.renorm(slot)

    def remove(self) -> None:
        """The base as it was."""
        for name, layer in self.stacked.items():
            if isinstance(layer, StackedSite):
                layer.hook.remove()
            else:
                self.model.set_submodule(name, self.linear[name])
        self.stacked.clear()


def pissa(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """(out, in) -> A (rank, in) and B (rank, out) whose product, scaled, is the part of the largest singular values (arXiv 2404.02948)."""
    u, values, v = torch.linalg.svd(weight, full_matrices=False)
    root = (values[:rank] / scale).sqrt()[:, None]
    return root * v[:rank], (root * u[:, :rank].T).contiguous()


def olora(weight: Tensor, rank: int, scale: float) -> tuple[Tensor, Tensor]:
    """A and B of the first rows and columns of W = QR (arXiv 2406.01775)."""
    q, r = torch.linalg.qr(weight)
    return r[:rank].contiguous(), q[:, :rank].T.contiguous()


FIRST = {"pissa": pissa, "olora": olora}
"""Initialisations that begin with a part of the base's own weight."""


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
        **{
            key: getattr(config, key, None)
            for key in ("alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config")
        },
        f"init_lora_weights: {config.init_lora_weights}": config.init_lora_weights not in {True, *FIRST},
    }
    for key, set_ in reasons.items():
        if set_:
            raise UserError(key, "the shared engine has no adapter of this kind", "set engine: trl")
