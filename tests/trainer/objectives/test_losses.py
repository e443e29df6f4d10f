"""The losses of the objectives: classify and mlm (X05), contrastive, distill; weighted by probability (D20)."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.data.tokens import IGNORED
from trainer.objectives import losses


def test_a_pair_among_all_rows_is_found_and_a_batch_that_tells_nothing_costs_the_logarithm_of_its_rows() -> None:
    rows = torch.eye(4, 8)
    assert losses.contrastive(rows, rows * 3).mean().item() == pytest.approx(math.log1p(3 * math.exp(-20)), abs=1e-6)
    assert losses.contrastive(torch.ones(4, 8), torch.ones(4, 8)).tolist() == pytest.approx([math.log(4)] * 4)


def test_the_next_token_is_predicted_one_place_earlier_than_a_masked_one() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    labels[0, 3] = IGNORED
    shifted = torch.cat([labels[:, 1:], torch.full((2, 1), IGNORED)], dim=1)
    assert losses.next_token(logits, labels).item() == pytest.approx(losses.token(logits, shifted).item())


def test_masks_are_those_of_their_key_and_only_where_a_token_may_be_masked() -> None:
    ids, may_be = torch.arange(10, 4010), torch.ones(4000, dtype=torch.bool)
    may_be[:100] = False
    given, labels = losses.masked(ids, may_be, mask=3, vocabulary=5000, key=1)
    again, _ = losses.masked(ids, may_be, mask=3, vocabulary=5000, key=1)
    other, _ = losses.masked(ids, may_be, mask=3, vocabulary=5000, key=2)
    chosen = labels != IGNORED
    assert torch.equal(given, again) and not torch.equal(given, other)
    assert (
        not chosen[:100].any()
        and torch.equal(labels[chosen], ids[chosen])
        and torch.equal(given[~chosen], ids[~chosen])
    )
    assert 0.13 < chosen[100:].float().mean() < 0.17
    assert 0.7 < (given[chosen] == 3).float().mean() < 0.9
    assert 0.05 < (given[chosen] == ids[chosen]).float().mean() < 0.15


def test_the_shortest_text_has_a_mask() -> None:
    may_be = torch.tensor([False, True, False])
    for key in range(20):
        _, labels = losses.masked(torch.tensor([1, 7, 2]), may_be, mask=3, vocabulary=9, key=key)
        assert labels.tolist() == [IGNORED, 7, IGNORED]


def test_a_divergence_of_the_likeliest_tokens_counts_all_others_as_one() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(6, 9, generator=generator) * 3 for _ in range(2))
    for count in (1, 3, 8):
        for at, found in enumerate(losses.divergence(student, teacher, count).tolist()):
            p, q = (logits[at].double().softmax(-1) for logits in (student, teacher))
            kept = q.argsort(descending=True)[:count].tolist()
            pairs = [(p[one], q[one]) for one in kept] + [(1 - p[kept].sum(), 1 - q[kept].sum())]
            assert found == pytest.approx(sum(float(a * (a / b).log()) for a, b in pairs), abs=1e-5)
    whole = losses.divergence(student, teacher, 100)
    p, q = (logits.log_softmax(-1) for logits in (student, teacher))
    torch.testing.assert_close(whole, (p.exp() * (p - q)).sum(-1))
    assert bool((losses.divergence(student, teacher, 3) <= whole + 1e-6).all())


def test_a_divergence_s_gradient_is_finite_where_nearly_nothing_is_left_over() -> None:
    student = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    losses.divergence(student, torch.tensor([[0.0, 200.0, -200.0]]), 1).sum().backward()
    assert student.grad is not None and bool(student.grad.isfinite().all())


def test_what_is_unlikely_counts_for_less_where_it_is_weighted() -> None:
    """D20: -p log p, with the gradient of -log p times p."""
    nats = torch.tensor([math.log(2), math.log(4)], requires_grad=True)
    assert losses.total(nats, weighted=False).item() == pytest.approx(math.log(8))
    weighted = losses.total(nats, weighted=True)
    assert weighted.item() == pytest.approx(math.log(2) / 2 + math.log(4) / 4)
    [gradient] = torch.autograd.grad(weighted, nats)
    assert gradient.tolist() == pytest.approx([1 / 2, 1 / 4])
