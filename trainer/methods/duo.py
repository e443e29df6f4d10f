"""Duo: two models in one stream, an encoder and a decoder, with one step counter, one checkpoint and one manifest (rows D01-D06)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny, StringConstraints

from swarm import kinds
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
        return None


KINDS = (Duo(),)
