"""Generation ends where the base's positions end: a question and its answer never have more tokens together."""

from __future__ import annotations

import pytest
import torch

from tests import families
from tests.trainer import tiny
from trainer.judge.answers import Question, answers, generated

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
NEVER = 127
"""A token that an untrained model of 128 words hardly ever makes; stops are wanted."""


def question(prompt_tokens: int, expected_tokens: int) -> Question:
    return Question([5] * prompt_tokens, "x", "y", expected_tokens)


@pytest.mark.parametrize("family", ["gpt2", "mpt"])
@pytest.mark.parametrize("prompt_tokens", [1, 60, 63, 64])
def test_an_answer_ends_with_the_last_position_of_a_base_that_fails_behind_it(family: str, prompt_tokens: int) -> None:
    model = families.model_of(family)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.ones(1, 65, dtype=torch.long))
    [answer] = generated(model, [[5] * prompt_tokens], [NEVER], max_new_tokens=200)
    assert len(answer.ids) == 64 - prompt_tokens
    assert not answer.ended


def test_a_long_question_takes_no_position_from_the_answer_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.model_of("gpt2", vocab_size=len(tiny.tokenizer()))
    asked = [question(60, 4), question(10, 50), question(8, 40), question(50, 2)]
    widths: list[tuple[int, int]] = []
    generate = model.generate

    def watched(**given: torch.Tensor) -> torch.Tensor:
        made = generate(**given)
        widths.append((given["input_ids"].shape[1], made.shape[1]))
        return made

    monkeypatch.setattr(model, "generate", watched)
    assert len(answers(model, tiny.tokenizer(), asked, [NEVER], 200, lambda: None)) == 4
    assert widths == [(10, 64), (60, 64)], "the short ones had room for all that is expected of them"
