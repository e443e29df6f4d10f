"""Held-out losses: the head computes only what some row counts, and what it finds there is what it finds among all."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.families import FAMILIES, model_of
from trainer.data.tokens import IGNORED, Tokens
from trainer.judge.heldout import logits_at, row_losses

ROWS = [Tokens([3, 4, 5, 6, 7, 8], [IGNORED] * 4 + [7, 8], 4), Tokens([9, 3, 5], [IGNORED, IGNORED, 5], 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_all_logits_in_every_family(family: str) -> None:
    model = model_of(family).eval()
    found = row_losses(model, ROWS, lambda: None)
    for row, loss in zip(ROWS, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, row.answer_start - 1 : -1]
        answer = torch.tensor(row.labels[row.answer_start :])
        assert loss.nats == pytest.approx(cross_entropy(logits.float(), answer, reduction="sum").item(), rel=2e-5)
        assert loss.hits == int((logits.argmax(-1) == answer).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_computes_no_place_that_no_row_counts(family: str) -> None:
    model, seen = model_of(family).eval(), list[int]()
    model.get_output_embeddings().register_forward_hook(lambda *given: seen.append(given[1][0].shape[1]))
    row_losses(model, ROWS, lambda: None)
    assert seen == [3], "places 1, 3 and 4 of six, for two rows"


def test_a_model_whose_code_cannot_be_told_computes_all() -> None:
    class Deaf(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of("llama").eval()

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> object:
            return self.model(input_ids=input_ids, use_cache=use_cache)

    ids = torch.tensor([ROWS[0].ids])
    places, deaf = torch.tensor([-5, -3, -2]), Deaf()
    with torch.no_grad():
        assert torch.allclose(
            logits_at(places, deaf, input_ids=ids), logits_at(places, deaf.model, input_ids=ids), atol=1e-6
        )
