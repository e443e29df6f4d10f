from __future__ import annotations

import pytest
import torch

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import recipe
from trainer.loop.certify import certify
from trainer.loop.fusable import unfusable

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`parallel_attn`"),
]
FAMILIES = [
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2", "neox", "falcon", "phi3", "cohere", "mpt", "stablelm", "olmo", "olmo2",
    "granite", "bloom", "opt",
]  # fmt: skip


@pytest.mark.parametrize(("family", "tied"), [(family, bool(number % 2)) for number, family in enumerate(FAMILIES)])
def test_streams_on_a_base_of_this_family_are_fused_and_certified(family, tied) -> None:
    base = decoders.decoder(family, tie_word_embeddings=tied)
    assert unfusable(base) is None
    recipes = {"rs": recipe(4, steps=2), "dora": recipe(3, steps=3, recompute=True)}
    for certificate in certify(base, recipes):
        assert certificate.holds, certificate


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_and_a_head_of_its_own_are_both_left_alone(tied) -> None:
    from tests.trainer.loop.recipes import loop_of

    model = decoders.decoder(tie_word_embeddings=tied)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loop, _, _ = loop_of({"rs": recipe(4)}, model)
    loop.run()
    loop.layers.remove()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_mixture_of_experts_is_told_with_the_reason() -> None:
    assert "mixture of experts" in unfusable(decoders.decoder("mixtral"))


def test_a_base_whose_rows_mix_is_told_with_the_reason() -> None:
    model = decoders.decoder()
    layer = model.model.layers[1].mlp
    forward = layer.forward
    layer.forward = lambda x: forward(x) + x.mean(0, keepdim=True)
    assert unfusable(model) == "a row's hidden states depend on the rows or pads beside it"


def test_a_base_that_looks_ahead_is_told_with_the_reason() -> None:
    model = decoders.decoder()
    layer = model.model.layers[0].mlp
    forward = layer.forward
    layer.forward = lambda x: forward(x) + x.mean(1, keepdim=True)
    assert unfusable(model) == "a row's hidden states depend on the rows or pads beside it"
