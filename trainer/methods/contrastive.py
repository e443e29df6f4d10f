"""Contrastive learning: two texts that belong together get vectors that are alike, and unlike those of the other pairs of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from swarm.facts import BaseFacts
from swarm.keys import Settings
from swarm.kinds import Method, Refusal

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, OfOneStream
    from trainer.objectives.likeness import Likeness


class ContrastiveSettings(Settings):
    contrastive_temperature: Annotated[float, Field(gt=0)] = 0.05
    """Cosines are divided by it: the smaller, the more the hardest of the other pairs count (arXiv 2104.08821)."""


class Contrastive(Method[ContrastiveSettings]):
    name = "contrastive"
    summary = "vectors of texts: alike for two that belong together, unlike those of other pairs"
    settings = ContrastiveSettings
    row_types: ClassVar[frozenset[str] | None] = frozenset({"prompt_completion"})
    peft_task: ClassVar[str] = "FEATURE_EXTRACTION"
    implied: ClassVar[Mapping[str, Any]] = {"metrics": [], "eval_rows": 0, "micro_batch_size": 16}
    words: ClassVar[bool] = False

    def in_pair(self, settings: ContrastiveSettings) -> bool:
        return True

    def refusal(self, settings: Any) -> Refusal | None:
        if settings.micro_batch_size == 1:
            what = "a pair is told apart from the others of its forward pass, and 1 has no others"
            return Refusal("micro_batch_size", what, "write e.g. 16")
        return None

    def unfit(self, base: BaseFacts, settings: ContrastiveSettings) -> Refusal | None:
        return None

    def of_rows(self, settings: ContrastiveSettings) -> dict[str, Any]:
        return {"two_texts": True}

    def objective(self, settings: Any) -> Likeness:
        from trainer.objectives.likeness import Likeness

        return Likeness(settings.contrastive_temperature)

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import whole_texts

        return whole_texts.trainer(ingredients, self.objective(ingredients.settings))


KINDS = (Contrastive(),)
