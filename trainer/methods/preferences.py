"""Learning from a better and a worse answer to each prompt, by TRL's trainers: DPO (arXiv 2305.18290), KTO (2402.01306) and ORPO (2403.07691).

The reference of DPO and KTO is the base with its adapter switched off; ORPO has none.  Rows come tokenised, with the spans that all methods supervise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from swarm.keys import Settings
from swarm.kinds import Method, Refusal

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, OfOneStream

Weight = Annotated[float, Field(gt=0)]


class DpoSettings(Settings):
    dpo_beta: Weight = 0.1
    """How strongly the reference holds: rewards are beta times the log-ratio to it."""
    dpo_loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """Of the difference of rewards: sigmoid (DPO), hinge (SLiC) or ipo (arXiv 2310.12036)."""


class KtoSettings(Settings):
    kto_beta: Weight = 0.1
    """How strongly the reference holds."""
    desirable_weight: Weight = 1.0
    """Of the better answers' losses."""
    undesirable_weight: Weight = 1.0
    """Of the worse ones'."""


class OrpoSettings(Settings):
    orpo_alpha: Weight = 0.1
    """How much the odds ratio of the two answers counts beside the likelihood of prompt and better answer."""


class Dpo(Method[DpoSettings]):
    name = "dpo"
    summary = "direct preference optimisation on pairs of answers"
    settings = DpoSettings
    pairs: ClassVar[bool] = True

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import preferences

        return preferences.dpo(ingredients)


class Kto(Method[KtoSettings]):
    name = "kto"
    summary = "better and worse answers each for itself"
    settings = KtoSettings
    pairs: ClassVar[bool] = True
    examples: ClassVar[int] = 2

    def refusal(self, settings: Any) -> Refusal | None:
        if settings.micro_batch_size < 2:
            what = "KTO estimates its reference point from the other rows of a forward pass"
            return Refusal("micro_batch_size", what, "write at least 2")
        return None

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import preferences

        return preferences.kto(ingredients)


class Orpo(Method[OrpoSettings]):
    name = "orpo"
    summary = "supervised tuning and the odds ratio of pairs of answers in one loss"
    settings = OrpoSettings
    pairs: ClassVar[bool] = True

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import preferences

        return preferences.orpo(ingredients)


KINDS = (Dpo(), Kto(), Orpo())
