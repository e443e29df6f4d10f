"""One layer forth and back against the formula: whatever stands below it, whoever's rows are in the pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tests.trainer.loop import decoders
from trainer.loop.dequantised import weight_of
from trainer.loop.layer import Pair, StackedLinear, draw_mask
from trainer.loop.low_rank import is_its_matrix
from trainer.loop.plan import Pass, Plan, Row

IN, OUT, T = 64, 48, 5  # columns of a layer in 4 bits are packed by 64
CPU = torch.device("cpu")


class Own(nn.Linear):
    """As Falcon's: a forward pass of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T + self.bias


def conv1d() -> nn.Module:
    return Conv1D(OUT, IN)


def packed() -> nn.Module:
    model = nn.Module()
    model.one = nn.Linear(IN, OUT)
    model.get_output_embeddings = lambda: None
    return decoders.quantised(model).one


def patched() -> nn.Module:
    base = nn.Linear(IN, OUT)
    base.forward = lambda x: nn.functional.linear(x, base.weight, base.bias)
    return base


BASES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "linear": (lambda: nn.Linear(IN, OUT), True),
    "no bias": (lambda: nn.Linear(IN, OUT, bias=False), True),
    "conv1d": (conv1d, True),
    "4 bit": (packed, True),
    "own forward": (lambda: Own(IN, OUT), False),
    "patched": (patched, False),
}


def layer_on(base: nn.Module, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> StackedLinear:
    """Three slots of different ranks and scales."""
    layer = StackedLinear(base.requires_grad_(False), Plan(), number=7)
    pairs = [
        Pair(torch.randn(rank, IN, dtype=dtype), torch.randn(rank, OUT, dtype=dtype), None, scale, dropout)
        for rank, scale in ((2, 0.5), (4, 2.0), (3, 1.0))
    ]
    layer.stack(pairs, dtype, CPU)
    return layer


def by_formula(layer: StackedLinear, x: Tensor, current: Pass) -> tuple[Tensor, dict[int, tuple[Tensor, Tensor]]]:
    """In fp64, with leaves for A and B of each slot."""
    base, leaves = layer.base, {}
    weight, bias = weight_of(base).double(), getattr(base, "bias", None)
    outputs = []
    for row, of_row in zip(current.rows, x, strict=True):
        pair = layer.pairs[row.slot]
        assert pair is not None
        a, b = leaves.setdefault(
            row.slot, tuple(value.detach().double().requires_grad_() for value in (pair.a, pair.b))
        )
        keep = torch.ones(T, IN)
        if pair.dropout:
            draw_mask(keep, pair.dropout, row.key or 0, layer.number)
        added = pair.scale * (of_row * keep) @ a.T @ b
        outputs.append(of_row @ weight.T + (0 if bias is None else bias.double()) + added)
    return torch.stack(outputs), leaves


@pytest.mark.parametrize("slots", [[0, 1, 2], [1], [0, 2], [1, 1, 2], [0, 0, 1, 1]], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("kind", BASES)
def test_outputs_and_gradients_are_those_of_the_formula(kind: str, dropout: float, slots: list[int]) -> None:
    torch.manual_seed(0)
    make, is_known = BASES[kind]
    layer = layer_on(make(), dropout)
    assert is_its_matrix(layer.base, torch.float32) == is_known
    current = Pass.of([Row(slot, [3] * T, [3] * T, key=9 + at) for at, slot in enumerate(slots)], CPU)
    x = torch.randn(len(slots), T, IN, requires_grad=True)
    wide = x.detach().double().requires_grad_()
    gradient = torch.randn(len(slots), T, OUT)
    with layer.plan.running(current):
        y = layer(x)
        y.backward(gradient)
    wanted, leaves = by_formula(layer, wide, current)
    wanted.backward(gradient.double())

    def close(mine: Tensor | None, other: Tensor | None) -> None:
        assert mine is not None and other is not None
        torch.testing.assert_close(mine.double(), other, rtol=0, atol=2e-5 * float(other.abs().max()))

    close(y.detach(), wanted.detach())
    close(x.grad, wide.grad)
    for slot, pair in enumerate(layer.pairs):
        assert pair is not None
        for value, leaf in zip((pair.a, pair.b), leaves.get(slot, (None, None)), strict=True):
            if leaf is None:
                assert value.grad is not None and not value.grad.any(), "nobody's rows were in the pass"
            else:
                close(value.grad, leaf.grad)


def test_what_is_added_to_a_base_in_16_bits_is_rounded_once() -> None:
    torch.manual_seed(0)
    base = nn.Linear(IN, OUT, dtype=torch.bfloat16)
    layer = layer_on(base)
    current = Pass.of([Row(slot, [3] * T, [3] * T) for slot in range(3)], CPU)
    x = torch.randn(3, T, IN, dtype=torch.bfloat16, requires_grad=True)
    with layer.plan.running(current):
        y = layer(x)
    alone = base(x.detach()).float()
    for at, pair in enumerate(layer.pairs):
        assert pair is not None
        low = (x.detach()[at].float() @ pair.a.T) * pair.scale
        assert torch.equal(y[at], (alone[at] + low @ pair.b).bfloat16())
    y.backward(torch.ones_like(y))
    assert x.grad is not None and x.grad.dtype is torch.bfloat16


def test_a_4_bit_base_that_computes_in_another_type_is_left_to_its_own_way_back() -> None:
    base = packed()
    assert is_its_matrix(base, torch.float32) and not is_its_matrix(base, torch.bfloat16)


@pytest.mark.parametrize("kind", BASES)
def test_an_input_that_nothing_stands_below_gets_no_gradient(kind: str) -> None:
    layer = layer_on(BASES[kind][0]())
    current = Pass.of([Row(1, [3] * T, [3] * T)], CPU)
    x = torch.randn(1, T, IN)
    with layer.plan.running(current):
        layer(x).sum().backward()
    assert x.grad is None
    pair = layer.pairs[1]
    assert pair is not None and pair.a.grad is not None and pair.a.grad.any()
