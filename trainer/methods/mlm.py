"""Masked language modelling: an encoder finds masked tokens of plain text (BERT, arXiv 1810.04805), to learn a domain before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from swarm.facts import BaseFacts
from swarm.keys import Settings
from swarm.kinds import Method, Refusal

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, OfOneStream
    from trainer.objectives.masked import Masked


class MlmSettings(Settings):
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Of the tokens that are to be found; drawn anew in each epoch, for held-out rows always the same."""


class Mlm(Method[MlmSettings]):
    name = "mlm"
    summary = "finding masked tokens of plain text, by an encoder"
    settings = MlmSettings
    row_types: ClassVar[frozenset[str] | None] = frozenset({"text"})
    peft_task: ClassVar[str] = "FEATURE_EXTRACTION"
    implied: ClassVar[Mapping[str, Any]] = {"metrics": ["perplexity"], "eval_rows": 0}
    words: ClassVar[bool] = False

    def in_pair(self, settings: MlmSettings) -> bool:
        return True

    def unfit(self, base: BaseFacts, settings: MlmSettings) -> Refusal | None:
        if not base.reads_both_ways:
            what = "predicts what comes next, and masked tokens are found by an encoder"
            return Refusal("base_model", what, "take an encoder such as BERT, or `method: sft`")
        return self.without_head(base)

    def of_rows(self, settings: Any) -> dict[str, Any]:
        return {"masked": True}

    def objective(self, settings: Any) -> Masked:
        from trainer.objectives.masked import Masked

        return Masked(settings.base_model, settings.mask_share)

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import whole_texts

        return whole_texts.trainer(ingredients, self.objective(ingredients.settings))


KINDS = (Mlm(),)
