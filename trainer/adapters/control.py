"""Control adapters: low-rank maps of what layers add to the residual stream, trained towards one style of text and away from another.

A folder holds PEFT's two files.  adapter_config.json is LoRA's with `peft_type: CONTROL`, `control_site` (mlp | block),
`control_adapter_type` (full | symmetrise | antisymmetrise | spectral), `r`, `lora_alpha`, `use_rslora`, patterns, and `target_modules`: the sites
beside the linear layers that have a LoRA too.  adapter_model.safetensors has for each site, `model.layers.3.mlp` or `model.layers.3` say,

    base_model.model.<site>.control.lora_A.weight   (r, H)      base_model.model.<site>.control.lora_Q   (H, r)   of `spectral`
    base_model.model.<site>.control.lora_B.weight   (H, r)      base_model.model.<site>.control.lora_S   (r,)

in fp32, and LoRA's own names for linear layers.  What is computed with them stands in `trainer.control.forms`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from swarm.errors import UserError
from swarm.facts import BaseFacts, Module
from swarm.kinds import Refusal, Shape, Shrinking
from trainer.adapters.lora import FP32, Lora, LoraSettings, bad_pattern, too_strong_a_decay
from trainer.control.sites import CHILD, sites

if TYPE_CHECKING:
    from trainer.control.tuner import ControlConfig

NOT_HERE = {"use_dora": False, "init_lora_weights": "default", "lora_weight_dtype": "float32", "start_adapter": None}
"""Settings of LoRA that a control adapter has not, with their values without it."""


class ControlSettings(LoraSettings):
    lora_alpha: Annotated[float, Field(ge=0)] = 0
    """The adapter's output is scaled by alpha / rank; 0: the root of `lora_r`, rounded."""
    lora_target_modules: str | list[str] = []  # noqa: RUF012  pydantic copies defaults
    """Linear layers that get a LoRA beside it, as with `adapter: lora`; none by default."""
    control_site: Literal["mlp", "block"] = "mlp"
    """What it maps: the MLP's output (exactly convertible into a LoRA), or all that a layer adds to the residual stream."""
    control_adapter_type: Literal["full", "symmetrise", "antisymmetrise", "spectral"] = "full"
    """The map: any, symmetric, antisymmetric, or Q (exp(S) - 1) Q^T, of which class -1 is the exact inverse."""
    control_adapter_gamma: Annotated[float, Field(gt=0, le=0.5)] = 0.5
    """Of spectral: after each step Q is brought back to orthonormal columns, Q - gamma Q (Q^T Q - 1)."""
    control_neutral_lambda: Annotated[float, Field(ge=0)] = 0.0
    """Weight of |u|^2 / |x|^2, what it adds by what it is given, on the supervised tokens of class 0; the mean of the sites."""
    allow_one_class: bool = False
    """Train on datasets of one `control_class` alone: it is a plain adapter then, with nothing to tell apart."""

    @property
    def alpha(self) -> float:
        return self.lora_alpha or max(1, round(math.sqrt(self.lora_r)))

    @property
    def decayed_share(self) -> float:
        """Of a spectral adapter's S, or as a LoRA's."""
        if self.control_adapter_type != "spectral":
            return super().decayed_share
        return 0.0 if self.lora_weight_decay_type == "none" else self.lora_weight_decay

    @property
    def has_lora(self) -> bool:
        """Whether linear layers have a LoRA beside it."""
        return bool(self.lora_target_modules) or self.lora_target_mode is not None


class Control(Lora):
    name = "control"
    summary = "low-rank maps of what layers add to the residual stream, with a sign for each class of text"
    settings = ControlSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared"})
    reads_classes = True

    def refusal(self, settings: Any) -> Refusal | None:
        for key, without in NOT_HERE.items():
            if getattr(settings, key) != without:
                return Refusal(key, f"{self.name} adapters have none", "leave it out")
        if settings.control_adapter_type == "spectral" and settings.lora_weight_decay_type not in {"nuclear", "none"}:
            what = "a spectral adapter decays S itself"
            return Refusal("lora_weight_decay_type", what, "leave it out: S is multiplied by 1 - rate x decay")
        classes = {dataset.control_class for dataset in settings.datasets}
        if len(classes) == 1 and not settings.allow_one_class:
            what = f"every dataset has control_class {classes.pop():+d}: there is nothing to tell apart"
            return Refusal("datasets", what, "add one of class -1, or write `allow_one_class: true`")
        if settings.control_neutral_lambda and 0 not in classes:
            return Refusal("control_neutral_lambda", "no dataset has control_class 0", "leave it out")
        if settings.lora_target_mode and settings.lora_target_modules:
            return Refusal("lora_target_mode", "lora_target_modules names layers too", "leave one of them out")
        documents = [dataset for dataset in settings.datasets if dataset.type == "document"]
        if settings.mix_datasets and len({dataset.prefix_class for dataset in documents}) > 1:
            return Refusal(
                "mix_datasets", "documents of several prefix_class would share a sequence", "write one of them"
            )
        return bad_pattern(settings) or too_strong_a_decay(settings)

    def engines_with(self, settings: Any) -> frozenset[str]:
        return self.engines

    def neutral_lambda(self, settings: Any) -> float:
        return float(settings.control_neutral_lambda)

    def adapts_linears(self, settings: Any) -> bool:
        return bool(settings.has_lora)

    def label(self, settings: Any) -> str:
        return f"{self.name} r{settings.lora_r}{' + lora' if settings.has_lora else ''}"

    def details(self, settings: Any) -> str:
        return f"α{settings.alpha:g} {settings.control_site} {settings.control_adapter_type}"

    def linears(self, base: BaseFacts, settings: Any) -> list[Module]:
        return super().linears(base, settings) if settings.has_lora else []

    def places(self, base: BaseFacts, settings: Any) -> list[str]:
        return [*_sites(base, settings), *super().places(base, settings)]

    def trained(self, base: BaseFacts, settings: Any) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {}
        for site in _sites(base, settings):
            name, rank = f"base_model.model.{site}.{CHILD}", settings.rank_of(site)
            if settings.control_adapter_type == "spectral":
                shapes |= {f"{name}.lora_Q": (base.hidden_size, rank), f"{name}.lora_S": (rank,)}
            else:
                shapes[f"{name}.lora_A.weight"] = (rank, base.hidden_size)
                shapes[f"{name}.lora_B.weight"] = (base.hidden_size, rank)
        return shapes | super().trained(base, settings)

    def shared_activation_bytes(self, base: BaseFacts, settings: Any, width: int) -> float:
        """What it is given, in fp32, with dropout's mask and what that leaves; A's outputs, of mirrored forms twice; u."""
        found = _sites(base, settings)
        wide = base.hidden_size * FP32 * (4 if settings.lora_dropout else 2)
        kept = float(len(found) * wide + sum(2 * settings.rank_of(site) for site in found) * FP32)
        return kept + super().shared_activation_bytes(base, settings, width)

    def shrinking(self, settings: Any) -> Shrinking:
        """Always there: the norms are figures of a control adapter, whether anything decays or not."""
        gamma = settings.control_adapter_gamma if settings.control_adapter_type == "spectral" else 0.0
        return (super().shrinking(settings) or Shrinking("nuclear", 0.0, 0.0))._replace(gamma=gamma)

    def config(self, base: BaseFacts, settings: Any) -> ControlConfig:
        from trainer.control.tuner import ControlConfig

        return ControlConfig(
            task_type="CAUSAL_LM",
            r=settings.lora_r,
            lora_alpha=settings.alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=self.places(base, settings),
            rank_pattern=dict(settings.rank_pattern),
            alpha_pattern=dict(settings.alpha_pattern),
            use_rslora=settings.use_rslora,
            bias="none",
            control_site=settings.control_site,
            control_adapter_type=settings.control_adapter_type,
        )

    def known_to_peft(self) -> None:
        import trainer.control.tuner  # noqa: F401  it registers the type

    def let_join(self, model: Any, peft_type: str) -> None:
        from trainer.control.tuner import let_join

        let_join(model, peft_type)


def _sites(base: BaseFacts, settings: Any) -> list[str]:
    """Raises UserError for a base that has none, or is narrower than a spectral adapter's orthonormal columns are many."""
    found = sites(base, settings.control_site, settings.layers_to_transform)
    largest = max(map(settings.rank_of, found))
    if settings.control_adapter_type == "spectral" and largest > base.hidden_size:
        what = f"{largest} orthonormal columns do not fit into the base's width of {base.hidden_size}"
        raise UserError("lora_r", what, "lower it, or take another control_adapter_type")
    return found


KINDS = (Control(),)
