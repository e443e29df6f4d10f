"""Telling which of several labels a text has, or two texts together: a new head is trained whole beside the adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from swarm.facts import BaseFacts
from swarm.keys import Settings
from swarm.kinds import Method, Refusal, Shape

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, OfOneStream
    from trainer.objectives.classes import Classes

Label = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int | float) else value)]


class ClassifySettings(Settings):
    labels: Annotated[list[Label], Field(min_length=2, max_length=1000)]
    """What a text may be, as its column has it; the numbers of the head's outputs follow this order."""


class Classify(Method[ClassifySettings]):
    name = "classify"
    summary = "telling which of several labels a text has, by an encoder or a decoder"
    settings = ClassifySettings
    row_types: ClassVar[frozenset[str] | None] = frozenset({"labelled"})
    peft_task: ClassVar[str] = "SEQ_CLS"
    implied: ClassVar[Mapping[str, Any]] = {"metrics": ["accuracy", "f1"], "eval_rows": 1024}
    words: ClassVar[bool] = False

    def in_pair(self, settings: ClassifySettings) -> bool:
        return True

    def refusal(self, settings: ClassifySettings) -> Refusal | None:
        if len(set(settings.labels)) < len(settings.labels):
            return Refusal("labels", "a label stands there twice", "write each once")
        return None

    def unfit(self, base: BaseFacts, settings: ClassifySettings) -> Refusal | None:
        if not base.classifier:
            return Refusal("method", "transformers has no head for labels on this base's family", "take another base")
        if base.labels and list(base.labels) != settings.labels:
            what = f"the base tells {', '.join(base.labels)} already"
            return Refusal("labels", what, "write these in their order, or take a base without such a head")
        return None

    def head(self, base: BaseFacts, settings: ClassifySettings) -> dict[str, Shape]:
        count = len(settings.labels)
        return {name: tuple(count if size == 1 else size for size in shape) for name, shape in base.classifier}

    def of_rows(self, settings: ClassifySettings) -> dict[str, Any]:
        return {"labels": settings.labels}

    def objective(self, settings: ClassifySettings) -> Classes:
        from trainer.objectives.classes import Classes

        return Classes(tuple(settings.labels))

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import whole_texts

        return whole_texts.trainer(ingredients, self.objective(ingredients.settings))  # type: ignore[arg-type]


KINDS = (Classify(),)
