"""Row A11 and issue 16: DFT, ASFT and a KL term, by their formulas, whatever the rows are batched with, and with one pass of the base."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from tests.trainer.loop import decoders
from tests.trainer.loop.recipes import FIVE, loop_of, same
from trainer.data.tokens import IGNORED
from trainer.loop.batches import Batches
from trainer.loop.certify import certify
from trainer.loop.losses import Likelihood, Regularised, Weighted
from trainer.loop.parts import Loss, Predicted

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
KL = {
    "forward": Regularised(0.5),
    "reverse": Regularised(0.5, tau=2.0, reverse=True),
    "everywhere": Regularised(0.5, everywhere=True),
    "asft": Regularised(0.05, weighted=True),
}


def predicted(tokens: int = 6, words: int = 11) -> Predicted:
    torch.manual_seed(0)
    logits, base = torch.randn(2, tokens, words, dtype=torch.float64)
    targets = torch.randint(words, (tokens,))
    return Predicted(logits.requires_grad_(), targets, base)


def test_dft_weights_each_token_by_its_own_probability_without_gradient_through_it() -> None:
    """arXiv 2508.05629, equation 9: the gradient is that of the likelihood times p."""
    tokens = predicted()
    loss, ce, *_ = Weighted()(tokens).unbind(1)
    nats = cross_entropy(tokens.logits, tokens.targets, reduction="none")
    chance = (-nats).exp().detach()
    torch.testing.assert_close(loss, nats * chance)
    torch.testing.assert_close(ce, nats)
    [mine] = torch.autograd.grad(loss.sum(), tokens.logits)
    [theirs] = torch.autograd.grad((nats * chance).sum(), tokens.logits)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("loss", [Likelihood(), Weighted(), Regularised(0.5)])
def test_every_loss_states_the_entropy_of_what_is_predicted_and_how_often_the_target_is_the_likeliest(
    loss: Loss,
) -> None:
    """A20."""
    tokens = predicted()
    tokens.targets[:2] = tokens.logits[:2].argmax(-1)
    tokens.targets[-1] = IGNORED
    *_, entropy, right = loss(tokens).unbind(1)
    expected = torch.distributions.Categorical(logits=tokens.logits[:-1]).entropy()
    torch.testing.assert_close(entropy, torch.cat([expected, torch.zeros(1, dtype=torch.float64)]))
    assert right[:2].tolist() == [1, 1]
    assert right.tolist() == (tokens.logits.argmax(-1) == tokens.targets).double().tolist()
    assert not entropy.requires_grad or torch.autograd.grad(entropy.sum(), tokens.logits)[0].abs().max() == 0


@pytest.mark.parametrize("tau", [1.0, 2.5])
def test_the_kl_term_is_that_of_torch_and_its_gradient_is_tau_times_the_difference(tau: float) -> None:
    tokens = predicted()
    assert tokens.base is not None
    trained, base = (tokens.logits / tau).log_softmax(-1), (tokens.base / tau).log_softmax(-1)
    for reverse, expected in (
        (False, kl_div(trained, base, reduction="none", log_target=True).sum(-1)),
        (True, kl_div(base, trained, reduction="none", log_target=True).sum(-1)),
    ):
        loss, ce, kl, *_ = Regularised(0.3, tau, reverse=reverse)(tokens).unbind(1)
        torch.testing.assert_close(kl, expected)
        torch.testing.assert_close(loss, ce + 0.3 * tau**2 * kl)
    loss, ce, *_ = Regularised(1.0, tau)(tokens).unbind(1)
    nats = cross_entropy(tokens.logits, tokens.targets, reduction="none")
    [gradient] = torch.autograd.grad((loss - nats).sum(), tokens.logits)
    torch.testing.assert_close(gradient, tau * (trained.exp() - base.exp()))


def test_a_token_that_is_not_supervised_counts_for_the_kl_term_alone() -> None:
    tokens = predicted()
    nobody = Predicted(tokens.logits, torch.full((6,), IGNORED), tokens.base)
    loss, ce, kl, *_ = Regularised(0.3, everywhere=True, weighted=True)(nobody).unbind(1)
    assert not ce.any()
    torch.testing.assert_close(loss, 0.3 * kl)


def test_every_loss_is_certified_beside_all_others() -> None:
    """Alone = in a group = PEFT with its adapter switched off for the base."""
    names = ["rs", "lion", "dora", "wide"]
    recipes = {name: replace(FIVE[name], loss=loss) for name, loss in zip(names, KL.values(), strict=True)}
    recipes["small"] = replace(FIVE["small"], loss=Weighted())
    for certificate in certify(decoders.decoder(dtype=torch.float64), recipes, steps=3):
        assert certificate.holds, certificate


def test_with_exact_a_stream_with_a_kl_term_is_bit_equal_alone_and_in_a_group() -> None:
    held = replace(FIVE["rs"], loss=KL["everywhere"])
    made = []
    for others in ({}, {"dora": replace(FIVE["dora"], loss=KL["everywhere"]), "small": FIVE["small"]}):
        loop, _, streams = loop_of({"rs": held, **others}, exact=True)
        loop.run()
        made.append(streams["rs"])
    assert same(*made)


@pytest.mark.parametrize("name", KL)
def test_accumulation_changes_neither_loss_nor_gradient(name: str) -> None:
    """4 x 1 = 1 x 4 with the KL term on: all sums are divided by the supervised tokens of the whole step."""
    made = []
    for size, accumulation in ((4, 1), (1, 4)):
        batches = Batches(decoders.rows(12, (4, 20)), micro_batch_size=size, accumulation=accumulation, seed=3)
        loop, kept, _ = loop_of({"rs": replace(FIVE["rs"], batches=batches, loss=KL[name])})
        loop.run()
        made.append(kept.steps["rs"])
    for one, other in zip(*made, strict=True):
        for figure in ("loss", "ce", "kl", "grad_norm"):
            assert one.figures[figure] == pytest.approx(other.figures[figure], rel=1e-5, abs=1e-6), figure


def test_cross_entropy_and_divergence_are_figures_of_their_own() -> None:
    loop, kept, _ = loop_of({"small": replace(FIVE["small"], loss=KL["reverse"]), "rs": FIVE["rs"]})
    loop.run()
    figures = [step.figures for step in kept.steps["small"]]
    assert all(one["loss"] == pytest.approx(one["ce"] + 0.5 * 4 * one["kl"], rel=1e-6) for one in figures)
    assert figures[0]["kl"] == pytest.approx(0, abs=1e-7), "a new adapter changes nothing"
    assert figures[-1]["kl"] > 1e-6
    assert "kl" not in kept.steps["rs"][0].figures


def test_a_loss_with_parts_may_join_while_another_stream_accumulates() -> None:
    accumulating = replace(
        FIVE["small"], batches=Batches(decoders.rows(12, (5, 9)), micro_batch_size=1, accumulation=3)
    )
    loop, kept, _ = loop_of({"small": accumulating})
    loop.tick()
    loop.add(replace(FIVE["rs"], loss=KL["forward"]).stream(loop, "late"))
    loop.run()
    assert not kept.failures and len(kept.steps["small"]) == accumulating.steps


def test_the_base_is_computed_once_for_equal_rows_and_not_at_all_for_those_that_need_none() -> None:
    batches = Batches(decoders.rows(8, (9, 9)), micro_batch_size=2, seed=1)
    recipes = {
        "one": replace(FIVE["small"], batches=batches, loss=KL["forward"]),
        "two": replace(FIVE["rs"], batches=batches, loss=KL["reverse"]),
        "plain": FIVE["wide"],
    }
    loop, _, _ = loop_of(recipes)
    seen, plain = [], loop.head.hidden

    def counted(ids: torch.Tensor) -> torch.Tensor:
        if loop.plan.current is None:
            seen.append(len(ids))
        return plain(ids)

    loop.head.hidden = counted
    for stream in loop.streams:
        stream.audits = 9  # an audit looks at the base too
    loop.tick()
    assert seen == [2], "of six rows, four are two twice, and two want no base"
