"""Supervised fine-tuning on the supervised tokens: by likelihood, as DFT weights it, and held near the base by a KL term."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from swarm.keys import Settings
from swarm.kinds import Method, Refusal

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, StreamTrainer
    from trainer.loop.parts import Loss

ASFT_LAMBDA = 0.05
"""Of the authors' own command line."""


class SftSettings(Settings):
    loss: Literal["nll", "dft", "asft"] = "nll"
    """nll: likelihood; dft: each token weighted by its own probability (arXiv 2508.05629); asft: dft with a KL term (arXiv 2509.23753)."""
    kl_lambda: Annotated[float, Field(ge=0)] | None = None
    """Weight of the divergence from the base on the same tokens (a third more work); unset: 0, for asft 0.05.  On the shared engine."""
    kl_tau: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of both distributions; the term is multiplied by its square."""
    kl_direction: Literal["forward", "reverse"] = "forward"
    """forward: KL(base, trained), as ASFT's code; reverse: KL(trained, base), as its paper."""
    kl_on: Literal["supervised", "all"] = "supervised"
    """Tokens that the divergence is summed over; the sum is divided by the number of supervised ones, as the loss is."""

    @property
    def anchor(self) -> float:
        """The weight of the KL term."""
        if self.kl_lambda is None:
            return ASFT_LAMBDA if self.loss == "asft" else 0.0
        return self.kl_lambda


class Sft(Method[SftSettings]):
    name = "sft"
    summary = "supervised fine-tuning"
    settings = SftSettings
    engines: ClassVar[frozenset[str]] = frozenset({"shared", "trl"})

    def engines_with(self, settings: SftSettings) -> frozenset[str]:
        return frozenset({"shared"}) if settings.anchor else self.engines

    def in_pair(self, settings: SftSettings) -> bool:
        return settings.loss == "nll" and not settings.anchor

    def refusal(self, settings: SftSettings) -> Refusal | None:
        if settings.loss == "asft" and not settings.anchor:
            return Refusal("kl_lambda", "asft without its KL term is dft", "write `loss: dft`, or a number above 0")
        for key in ("kl_tau", "kl_direction", "kl_on"):
            if not settings.anchor and getattr(settings, key) != SftSettings.model_fields[key].default:
                return Refusal(key, "there is no KL term", "set `kl_lambda`, or leave it out")
        return None

    def trainer(self, ingredients: Ingredients) -> StreamTrainer:
        from trainer.engines import trl

        return trl.trainer(ingredients)

    def loss(self, settings: SftSettings) -> Loss:
        return _loss(settings.loss, settings.anchor, settings.kl_tau, settings.kl_direction, settings.kl_on)


@cache
def _loss(name: str, anchor: float, tau: float, direction: str, on: str) -> Loss:
    """One object for equal settings: streams share its calls."""
    from trainer.loop.losses import WEIGHTED, Likelihood, Regularised

    if not anchor:
        return Likelihood() if name == "nll" else WEIGHTED
    return Regularised(anchor, tau, reverse=direction == "reverse", everywhere=on == "all", weighted=name != "nll")


KINDS = (Sft(),)
