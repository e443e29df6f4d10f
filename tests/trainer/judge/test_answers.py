"""Answers of a model: whoever waits for them sees at each token that they come, and may end them there."""

from __future__ import annotations

import pytest

from tests.trainer import tiny
from tests.trainer.loop.decoders import decoder
from trainer.errors import LeaseRevoked
from trainer.judge.answers import Question, answers

ASKED = [Question(ids, "", "", 8) for ids in ([5, 6, 7], [9, 8, 7, 6], [11, 12])]
NEVER = [0]


def test_one_batch_is_seen_to_move_at_each_token_and_ends_at_one() -> None:
    seen: list[int] = []

    def check() -> None:
        seen.append(len(seen))
        if len(seen) == 11:
            raise LeaseRevoked("one/evaluate")

    model, words = decoder("gpt2").eval(), tiny.tokenizer()
    answers(model, words, ASKED, NEVER, 8, check)
    assert len(seen) == 8
    with pytest.raises(LeaseRevoked):
        answers(model, words, ASKED, NEVER, 8, check)
    assert len(seen) == 11
