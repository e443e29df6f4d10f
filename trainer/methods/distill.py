"""On-policy self-distillation (SDFT, arXiv 2601.19897): the model answers, and the base that has read the row's own answer is its teacher.

The paper's teacher is an average of the student; here it is the base with its adapter off, so that no second model is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from swarm.errors import UserError
from swarm.keys import Positive, Settings
from swarm.kinds import Method, Refusal
from swarm.policy import templates

if TYPE_CHECKING:
    from trainer.engines.trl import Ingredients, OfOneStream
    from trainer.objectives.distilled import Distilled

PLACES = frozenset({"prompt", "completion"})
DEMONSTRATION = (
    "{prompt}\n\nThis is an example for a response to the question:\n{completion}\n\n"
    "Now answer with a response of your own."
)
"""As the paper's; it asks for the thinking process as well."""


class DistillSettings(Settings):
    distill_top_k: Positive = 20
    """The teacher's likeliest tokens that the divergence tells apart; all others count as one."""
    rollout_tokens: Positive = 128
    """Tokens of the model's own answers, at most; with its prompt an answer has at most `sequence_len`."""
    rollout_temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of the sampling of these answers."""
    demonstration: str = DEMONSTRATION
    """What the teacher is asked instead of the last question: `{prompt}` is that question, `{completion}` the row's answer."""


class Distill(Method[DistillSettings]):
    name = "distill"
    summary = "learning from the base that has read the answer, on the model's own answers"
    settings = DistillSettings
    row_types: ClassVar[frozenset[str] | None] = frozenset({"auto", "chatml", "alpaca", "prompt_completion", "toon"})

    def refusal(self, settings: Any) -> Refusal | None:
        if settings.train_on_inputs:
            return Refusal("train_on_inputs", "distill learns from the model's own answers", "leave it out")
        if settings.train_on == "marked":
            what = "distill learns the last answer of each row"
            return Refusal("train_on", what, "leave it out, or write `method: sft`")
        return _of_template(settings.demonstration)

    def of_rows(self, settings: DistillSettings) -> dict[str, Any]:
        return {"demonstration": settings.demonstration}

    def objective(self, settings: Any) -> Distilled:
        from trainer.objectives.distilled import Distilled

        return Distilled(
            settings.base_model, settings.trust_remote_code, settings.demonstration, settings.distill_top_k,
            settings.rollout_tokens, settings.rollout_temperature, settings.sequence_len,
        )  # fmt: skip

    def trainer(self, ingredients: Ingredients) -> OfOneStream:
        from trainer.engines import whole_texts

        objective = self.objective(ingredients.settings)
        objective.refuse_too_long(ingredients.model, ingredients.rows["demonstrated"])
        return whole_texts.trainer(ingredients, objective)


def _of_template(text: str) -> Refusal | None:
    fix = "write {prompt} and {completion} where they belong, and {{ and }} for braces"
    try:
        found = frozenset(templates.placeholders(text))
    except UserError as error:
        return Refusal("demonstration", error.what, fix)
    if found != PLACES:
        return Refusal("demonstration", f"it names {' and '.join(sorted(found))}", fix)
    return None


KINDS = (Distill(),)
