"""The growing cache: the same answers as with transformers' own, in every family, no copy of everything at each token, rows can leave."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

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


def test_a_base_whose_settings_look_at_the_prompt_keeps_its_rows_and_a_base_without_a_cache_answers() -> None:
    model = model_of("llama, tied").eval()
    assert kv_cache.can_select(model)
    model.generation_config.encoder_no_repeat_ngram_size = 3
    assert not kv_cache.can_select(model)
    first = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=32, n_positions=16, n_embd=8, n_layer=1, n_head=1)).eval()
    assert len(generated(first, [[5, 6], [7]], NEVER, 4)) == 2
