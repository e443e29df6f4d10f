"""The growing cache: the same answers as with transformers' own, in every family, and no copy of everything at each token."""

from __future__ import annotations

import pytest
import torch

from tests.families import FAMILIES, model_of
from trainer import kv_cache
from trainer.judge import answers
from trainer.judge.answers import generated

PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4], [11]]
NEVER = [0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_answers_are_those_of_transformers_own_cache(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(family).eval()
    monkeypatch.setattr(kv_cache, "FIRST_TOKENS", 3)  # it grows several times
    ours = generated(model, PROMPTS, NEVER, 24)
    monkeypatch.setattr(answers, "growing_cache", lambda _: {})
    assert ours == generated(model, PROMPTS, NEVER, 24)


def test_a_token_is_written_in_place_until_the_room_is_full() -> None:
    layer, places = kv_cache.GrowingLayer(), set()
    for at in range(3 * kv_cache.FIRST_TOKENS):
        states = torch.full((2, 1, 1, 4), float(at))
        keys, values = layer.update(states, -states)
        places.add(keys.data_ptr())
    assert keys[0, 0, :, 0].tolist() == list(range(3 * kv_cache.FIRST_TOKENS)) == (-values)[1, 0, :, 3].tolist()
    assert len(places) <= 4
