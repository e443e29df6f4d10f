"""The growing cache: the same answers as with transformers' own, in every family, no copy of everything at each token, rows can leave."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from tests.families import FAMILIES, model_of
from trainer import kv_cache
from trainer.judge import answers
from trainer.judge.answers import _until_stop, generated

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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_answers_that_have_ended_leave_the_batch_and_change_no_other(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = model_of(family).eval(), list[list[int]]()
    first = max(range(len(PROMPTS)), key=lambda at: len(generated(model, PROMPTS, NEVER, 24)[at].ids))
    prompts = [*PROMPTS, PROMPTS[first], PROMPTS[first]]  # most of the rows end together
    whole = generated(model, prompts, NEVER, 24)
    stops = [*NEVER, whole[first].ids[3]]

    def serving(rows: list[int]) -> AbstractContextManager[None]:
        batches.append(rows)
        return nullcontext()

    found = generated(model, prompts, stops, 24, serving=serving)
    expected = [cut if (cut := _until_stop(one.ids, stops)).ended else one for one in whole]
    assert found == expected
    tokens = sorted(len(one.ids) + one.ended for one in expected)
    assert (len(batches) > 1) == (kv_cache.can_select(model) and tokens[-1] > tokens[len(prompts) // 2])


def test_a_token_is_written_in_place_until_the_room_is_full() -> None:
    layer, places = kv_cache.GrowingLayer(), set()
    for at in range(3 * kv_cache.FIRST_TOKENS):
        states = torch.full((2, 1, 1, 4), float(at))
        keys, values = layer.update(states, -states)
        places.add(keys.data_ptr())
    assert keys[0, 0, :, 0].tolist() == list(range(3 * kv_cache.FIRST_TOKENS)) == (-values)[1, 0, :, 3].tolist()
    assert len(places) <= 4
