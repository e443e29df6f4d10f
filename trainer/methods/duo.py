"""Duo: two models in one stream, an encoder and a decoder, with one step counter, one checkpoint and one manifest (rows D01-D06)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, StringConstraints

from swarm import figures, kinds
from swarm.keys import Reads, Settings, Share
from swarm.kinds import Method, Refusal
from swarm.settings import Part, StreamSettings

Arbiter = Annotated[
    str,
    StringConstraints(pattern=r"^(?:none|round_robin|proportional|loss_slope|grad_norm|alternate:[1-9][0-9]{0,5})$"),
    Reads("none, round_robin, proportional, loss_slope, grad_norm or alternate:STEPS"),
]
FROM_BELOW = ("packing", "group_by_length", "batch_size_tokens", "gradient_checkpointing", "sealed_datasets", "exact")
"""What only engines of one model have."""


MOST_TIED = 64
"""Positions that a tie may take."""


class Model(StreamSettings):
    """One of the two models: its base, data, adapter, optimizer and schedule; what it does not say is the stream's."""


class DuoSettings(Settings):
    models: Annotated[dict[Literal["encoder", "decoder"], SerializeAsAny[Model]], Field(min_length=2)]
    """Both models, `{encoder: {...}, decoder: {...}}`: each takes the settings of a stream, and `objective`: its method, such as sft, mlm or classify."""
    arbiter: Arbiter | None = None
    """How far each model is updated in a step.  none: both as their schedules say; round_robin: in turns, a step each, alternate:N: N steps
    each; proportional: by their numbers of rows; loss_slope: more where the loss falls faster; grad_norm: less where gradients are longer."""
    arbiter_min: Annotated[float, Field(gt=0, le=1)] = 0.25
    """The smallest factor of a learning rate that it gives,"""
    arbiter_max: Annotated[float, Field(ge=1)] = 2.0
    """and the largest."""
    arbiter_beta: Share = 0.9
    """How much is kept, at each step, of the means that it goes by."""
    arbiter_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of loss_slope: the smaller, the more it prefers."""
    use_mmt: bool = False
    """The same as `arbiter: loss_slope`, unless one is named."""

    tie_tokens: Annotated[int, Field(ge=0, le=MOST_TIED)] = 0
    """The encoder's vector of a prompt becomes so many vectors before the decoder's own, by a projector that is trained with it; 0: the models are not tied."""
    tie_trains_encoder: bool = False
    """The decoder's loss trains the encoder too."""

    @property
    def parts(self) -> dict[str, Part]:
        """Without knowing what the method is: whoever goes over the parts of a stream goes over both."""
        return {name: self.models[name] for name in ("encoder", "decoder")}

    def part_steps(self, name: str) -> list[str]:
        return ["models", name]

    @property
    def arbitration(self) -> str:
        return self.arbiter or ("loss_slope" if self.use_mmt else "none")


class Duo(Method[DuoSettings]):
    name = "duo"
    summary = "an encoder and a decoder in one stream, each with its data, optimizer and schedule"
    settings = DuoSettings
    engines: ClassVar[frozenset[str]] = frozenset({"pair"})

    def tie_tokens(self, settings: DuoSettings) -> int:
        return settings.tie_tokens

    def refusal(self, settings: Any) -> Refusal | None:
        if settings.sealed_datasets:
            return Refusal("sealed_datasets", "no sealed rows are judged of two models", "leave it out")
        for name, model in settings.models.items():
            if not kinds.method(model.method).in_pair(model):
                what = f"the {name} learns by {model.method} with settings that one of two models cannot have"
                return Refusal("models", what, "write `objective: sft`, classify or mlm, with the plain loss")
            for key in FROM_BELOW:
                if getattr(model, key) != StreamSettings.model_fields[key].get_default(call_default_factory=True):
                    return Refusal(
                        "models", f"the {name} has `{key}`, which a model of two cannot have", "leave it out"
                    )
        return _bad_tie(settings)


def _bad_tie(settings: Any) -> Refusal | None:
    decoder = settings.models["decoder"]
    if not settings.tie_tokens:
        what = "the models are not tied, so that the decoder's loss says nothing about the encoder"
        return Refusal("tie_trains_encoder", what, "set `tie_tokens`") if settings.tie_trains_encoder else None
    if not kinds.method(decoder.method).words:
        what = f"its vectors stand before prompts, and the decoder learns {decoder.method}"
        return Refusal("tie_tokens", what, "write `objective: sft` for the decoder, or leave it out")
    if kinds.adapter(decoder.adapter).reads_classes:
        return Refusal(
            "tie_tokens", f"{decoder.adapter} computes with the class of each token", "write `adapter: lora`"
        )
    if kept := next((name for name in decoder.metrics if figures.of(name).of == "retention"), None):
        return Refusal("tie_tokens", f"{kept} is measured without the tie", "take it out of the decoder's `metrics`")
    return None


KINDS = (Duo(),)
