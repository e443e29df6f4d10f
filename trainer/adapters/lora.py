"""Low-rank adapters on a base that stays as it is; `use_dora` and `use_rslora` are switches of it.

A is (rank, inputs), B is (outputs, rank) (LoRA, arXiv 2106.09685); DoRA adds a magnitude per output (arXiv 2402.09353);
rsLoRA scales by alpha / sqrt(rank) (arXiv 2312.03732).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from swarm import kinds
from swarm.errors import UserError
from swarm.facts import BaseFacts, Module
from swarm.keys import Positive, Settings, Share
from swarm.kinds import AdapterKind, Method, Refusal, Shape, Shrinking
from trainer.adapters.start import MERGE, Start, filed, start_of
from trainer.targets import ALL_LINEAR, NAMES, matched, targeted

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

FP32, HALF = 4, 2
OF_PEFT = frozenset({"classifier", "score"})
"""Heads that PEFT trains whole by itself in a model that tells labels."""


class LoraSettings(Settings):
    lora_r: Positive = 8
    """Rank of the adapter's matrices."""
    lora_alpha: Annotated[float, Field(gt=0)] = 16
    """The adapter's output is scaled by alpha / rank."""
    lora_dropout: Share = 0.0
    """Share of the adapter's inputs that is dropped in training."""
    lora_target_modules: str | list[str] = ALL_LINEAR
    """Layers that get an adapter: a list of names (`[q_proj, v_proj]`), a pattern of whole names, or all-linear: all but the head."""
    lora_target_mode: Literal["attn", "attn_mlp", "auto"] | None = None
    """The same by what layers do, whatever the family calls them: attention, or the layers between as well; auto: attn_mlp where it has both, else all-linear."""
    layers_to_transform: int | str | list[int | str] | None = None
    """Only in these layers, counted from 0: `16:31` (both included), a list, or below zero from the end: `-4:-1`."""
    rank_pattern: dict[str, Positive] = {}  # noqa: RUF012  pydantic copies defaults
    """Another `lora_r` for layers whose names end so: `{q_proj: 16, 'layers.0.*': 4}`."""
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = {}  # noqa: RUF012
    """The same of `lora_alpha`."""
    init_lora_weights: Literal["default", "pissa", "olora"] = "default"
    """What A and B begin with: default: A at random and B zero; pissa or olora: a part of the base's own weights, which stays in it; twice the rank in the file; on the shared engine."""
    start_adapter: str | None = None
    """A LoRA of the same base that stays as it is below the one that is trained: its folder, or a version that a run has promoted (`demo-v3`); the stream's file holds both."""
    lora_weight_dtype: Literal["float32", "bfloat16"] = "float32"
    """How the adapter's weights are held; bfloat16 (with `engine: trl`) loses small updates without a Kahan optimizer, and takes no weight_decay."""
    lora_weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decay of what the adapter adds, s B A, instead of A and B apart (that is `weight_decay`): times the learning rate, after each step; on the shared engine."""
    lora_weight_decay_type: Literal["nuclear", "l2", "frobenius", "l1", "none"] = "nuclear"
    """Its penalty: nuclear s(|A|^2 + |B|^2), l2 |s B A|^2 / 2, frobenius (or l1, the source's name for it) |s B A|, which it lowers by exactly its step."""
    lora_max_norm: Annotated[float, Field(ge=0)] = 0.0
    """The largest |s B A| of a layer, after each step; 0: any."""
    use_dora: bool = False
    """Weight-decomposed LoRA (DoRA)."""
    use_rslora: bool = False
    """Scale the adapter by alpha / sqrt(rank) instead of alpha / rank."""

    @property
    def alpha(self) -> float:
        return self.lora_alpha

    @property
    def decayed_share(self) -> float:
        """Of A and B what a step of the decay takes off at the learning rate, where that does not depend on them: the largest of the layers."""
        if self.lora_weight_decay_type != "nuclear" or not self.lora_weight_decay:
            return 0.0
        layers = ("", *self.rank_pattern, *self.alpha_pattern)
        ranks = [min(self.rank_of(layer), sys.maxsize) for layer in layers]  # integers may be larger than any float
        scales = [
            self.alpha_of(layer) / rank ** (0.5 if self.use_rslora else 1)
            for layer, rank in zip(layers, ranks, strict=True)
        ]
        return float(2 * max(scales) * self.lora_weight_decay)

    @property
    def shrinks(self) -> bool:
        decays = self.lora_weight_decay > 0 and self.lora_weight_decay_type != "none"
        return decays or self.lora_max_norm > 0

    def rank_of(self, layer: str) -> int:
        """That is trained."""
        rank: int = matched(self.rank_pattern, layer) or self.lora_r
        return rank

    def alpha_of(self, layer: str) -> float:
        return float(matched(self.alpha_pattern, layer) or self.alpha)

    @property
    def targets(self) -> str | list[str]:
        """all-linear, a list of names, or a pattern."""
        wanted = self.lora_target_modules
        if isinstance(wanted, str) and wanted != ALL_LINEAR and NAMES.fullmatch(wanted):
            return [name.strip() for name in wanted.split(",") if name.strip()]
        return wanted


class Lora(AdapterKind[LoraSettings]):
    name = "lora"
    summary = "low-rank matrices beside the linear layers of a base that stays as it is"
    settings = LoraSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl"})

    def engines_with(self, settings: LoraSettings) -> frozenset[str]:
        """The stacks of the shared engine are in float32; it alone shrinks adapters, and PEFT's PiSSA and OLoRA change the base.

        PEFT's DoRA takes its norms from the base alone, without an adapter below.
        """
        shared = settings.lora_weight_dtype == "float32"
        on_dora = settings.use_dora and settings.start_adapter is not None
        trl = settings.init_lora_weights == "default" and not on_dora and not settings.shrinks
        return self.engines & {*(["shared"] if shared else []), *(["trl"] if trl else [])}

    def in_pair(self, settings: LoraSettings) -> bool:
        return super().in_pair(settings) and settings.start_adapter is None

    def refusal(self, settings: Any) -> Refusal | None:
        if settings.lora_target_mode and settings.lora_target_modules != ALL_LINEAR:
            return Refusal("lora_target_mode", "lora_target_modules names layers too", "leave one of them out")
        if settings.lora_weight_dtype == "bfloat16" and settings.weight_decay:
            what = "a decay is below what a weight in bfloat16 is rounded to: it would do nothing"
            return Refusal("weight_decay", what, "write 0, or `lora_weight_dtype: float32`")
        if settings.lora_weight_dtype == "bfloat16" and settings.shrinks:
            what = "a decay is below what a weight in bfloat16 is rounded to: it would do nothing"
            return Refusal("lora_weight_dtype", what, "write float32, or leave lora_weight_decay and lora_max_norm out")
        if settings.init_lora_weights != "default" and settings.shrinks:
            what = f"with {settings.init_lora_weights} A and B hold a part of the base, which must not decay"
            return Refusal("init_lora_weights", what, "write default, or leave lora_weight_decay and lora_max_norm out")
        for key in ("rank_pattern", "alpha_pattern"):
            if settings.init_lora_weights != "default" and getattr(settings, key):
                return Refusal(
                    key, f"with {settings.init_lora_weights} all layers have one rank and scale", "leave it out"
                )
        return bad_pattern(settings) or too_strong_a_decay(settings) or _refused_start(settings)

    def label(self, settings: LoraSettings) -> str:
        switches = [name for name, on in (("dora", settings.use_dora), ("rslora", settings.use_rslora)) if on]
        return " ".join([self.name, f"r{settings.lora_r}", *switches])

    def details(self, settings: LoraSettings) -> str:
        targets = settings.lora_target_mode or settings.targets
        below = f" on {'/'.join(Path(settings.start_adapter).parts[-2:])}" if settings.start_adapter else ""
        return f"α{settings.alpha:g} {targets if isinstance(targets, str) else '+'.join(targets)}{below}"

    def linears(self, base: BaseFacts, settings: Any) -> list[Module]:
        """The layers that it adapts."""
        return targeted(base, settings)

    def places(self, base: BaseFacts, settings: Any) -> list[str]:
        """The modules that have an A and a B."""
        return [target.name for target in self.linears(base, settings)]

    def filed(self, base: BaseFacts, settings: LoraSettings) -> LoraSettings:
        """The fixed rows of PiSSA and OLoRA are as many as the trained ones, those of `start_adapter` as many as it has."""
        targets = self.linears(base, settings)
        if settings.init_lora_weights != "default":
            return cast("LoraSettings", filed(settings, {one.name: settings.rank_of(one.name) for one in targets}))
        if (start := self.start(settings)) is None:
            return settings
        _refuse_idle_patterns(settings, self.places(base, settings))
        start.refuse_unfit(targets)
        return cast("LoraSettings", filed(settings, {one.name: start.ranks.get(one.name, 0) for one in targets}))

    def start(self, settings: LoraSettings) -> Start | None:
        return start_of(settings.start_adapter) if settings.start_adapter else None

    def tensors(self, base: BaseFacts, settings: LoraSettings) -> dict[str, Shape]:
        return self.trained(base, self.filed(base, settings))

    def trained(self, base: BaseFacts, settings: LoraSettings) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {}
        _refuse_idle_patterns(settings, self.places(base, settings))
        for target in self.linears(base, settings):
            name, rank = f"base_model.model.{target.name}", settings.rank_of(target.name)
            shapes[f"{name}.lora_A.weight"] = (rank, target.inputs)
            shapes[f"{name}.lora_B.weight"] = (target.outputs, rank)
            if settings.use_dora:
                shapes[f"{name}.lora_magnitude_vector"] = (target.outputs,)
        head = method_of(settings).head(base, settings)
        return shapes | {f"base_model.model.{name}": shape for name, shape in head.items()}

    def activation_bytes(self, base: BaseFacts, settings: LoraSettings, width: int) -> float:
        """Inputs of A where they are copies (cast or dropped out), dropout's mask, A's outputs; DoRA's outputs twice."""
        targets, settings = self.linears(base, settings), self.filed(base, settings)
        inputs, outputs = sum(target.inputs for target in targets), sum(target.outputs for target in targets)
        kept: float = sum(settings.rank_of(target.name) for target in targets) * FP32
        kept += inputs * width if width == HALF or settings.lora_dropout else 0
        kept += inputs * FP32 if settings.lora_dropout else 0
        return kept + (2 * outputs * width if settings.use_dora else 0)

    def shared_activation_bytes(self, base: BaseFacts, settings: LoraSettings, width: int) -> float:
        """A's outputs; dropout's mask and what it leaves; DoRA's outputs of base and adapter.  Casts are not kept."""
        targets, settings = self.linears(base, settings), self.filed(base, settings)
        inputs, outputs = sum(target.inputs for target in targets), sum(target.outputs for target in targets)
        kept: float = sum(settings.rank_of(target.name) for target in targets) * FP32
        kept += 2 * inputs * width if settings.lora_dropout else 0
        return kept + (outputs * (width + FP32) if settings.use_dora else 0)

    def overhead_bytes(self, base: BaseFacts, settings: LoraSettings, width: int) -> int:
        """DoRA computes the norm of a whole weight with its adapter, in fp32."""
        largest = max((target.elements for target in self.linears(base, settings)), default=0)
        return 3 * FP32 * largest if settings.use_dora else 0

    def shrinking(self, settings: LoraSettings) -> Shrinking | None:
        if not settings.shrinks:
            return None
        named = settings.lora_weight_decay_type
        strength = 0.0 if named == "none" else settings.lora_weight_decay
        return Shrinking(
            "frobenius" if named == "l1" else "l2" if named == "none" else named, strength, settings.lora_max_norm
        )

    def config(self, base: BaseFacts, settings: LoraSettings) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            task_type=method_of(settings).peft_task,
            modules_to_save=_heads(base, settings),
            r=settings.lora_r,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft says int; it only divides by it
            lora_dropout=settings.lora_dropout,
            target_modules=self.places(base, settings),
            rank_pattern=dict(settings.rank_pattern),
            alpha_pattern=dict(settings.alpha_pattern),
            init_lora_weights=True if settings.init_lora_weights == "default" else settings.init_lora_weights,
            use_dora=settings.use_dora,
            use_rslora=settings.use_rslora,
            bias="none",
        )

    def attach(self, model: PreTrainedModel, base: BaseFacts, settings: LoraSettings) -> PeftModel:
        import torch

        made = super().attach(model, base, settings)
        if settings.lora_weight_dtype == "bfloat16":
            for value in made.parameters():
                if value.requires_grad:
                    value.data = value.data.to(torch.bfloat16)
        return made


def method_of(settings: Any) -> Method[Any]:
    """A part of a stream has none of its own."""
    return kinds.method(getattr(settings, "method", "sft"))


def _heads(base: BaseFacts, settings: Any) -> list[str] | None:
    """Modules that are trained whole: each of the head's, by the name that it has in its parent."""
    names = {name.rpartition(".")[0] for name in method_of(settings).head(base, settings)}
    return sorted(name for name in names if name.partition(".")[0] not in OF_PEFT) or None


def _refuse_idle_patterns(settings: LoraSettings, layers: Sequence[str]) -> None:
    """Raises UserError where a pattern matches no layer: PEFT would leave it out with a warning."""
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(settings, key):
            if not any(matched({pattern: True}, layer) for layer in layers):
                what = f"{pattern!r} matches the end of no layer that gets an adapter, such as {layers[0]}"
                raise UserError(key, what, "correct it, or leave it out")


def too_strong_a_decay(settings: Any) -> Refusal | None:
    """A step that takes off more than there is would turn A and B round, and further off at each step."""
    if (share := settings.learning_rate * settings.decayed_share) <= 1:
        return None
    what = f"times learning_rate {settings.learning_rate:g} it takes off {share:.3g} times what there is at each step"
    return Refusal(
        "lora_weight_decay", what, f"write at most {settings.lora_weight_decay / share:.3g}, or lower the rate"
    )


def _refused_start(settings: Any) -> Refusal | None:
    if settings.start_adapter is None:
        return None
    if settings.init_lora_weights != "default":
        return Refusal("init_lora_weights", "beside a start_adapter A begins at random and B at zero", "leave it out")
    if settings.lora_dropout:
        return Refusal("lora_dropout", "it would drop inputs of the start_adapter too", f"write 0, or {MERGE}")
    if settings.lora_weight_dtype != "float32":
        return Refusal("lora_weight_dtype", "a start_adapter is held in float32", "leave it out")
    if settings.use_dora and "shared" not in method_of(settings).engines_with(settings):
        what = f"{settings.method} is trained by TRL, where DoRA's norms leave the start_adapter out"
        return Refusal("use_dora", what, f"leave it out, or {MERGE}")
    return None


def bad_pattern(settings: Any) -> Refusal | None:
    for key in ("rank_pattern", "alpha_pattern"):
        if bad := next((name for name in getattr(settings, key) if not _is_pattern(name)), None):
            return Refusal(key, f"{bad!r} is no pattern", "write the ends of layers' names")
    return None


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


KINDS = (Lora(),)
