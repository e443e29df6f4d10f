"""Would it pay to lay A of projections that read one input (q, k, v; gate, up) side by side along rank, in one product?

    python -m tests.benchmarks.bench_projections      # CPU time of one thread, forth and back, interleaved; Llama, 512 x 4, rank 16

Prints what a step of the loop would save: not enough so far (docs/loop.md) for layers that must know of each other.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.bench_loop import loop_of, medians, wide
from trainer.data.tokens import Tokens
from trainer.loop.layer import leaf
from trainer.loop.low_rank import low_rank
from trainer.quiet import quieten

WIDTH, LAYERS, RANK = 512, 4, 16
QKV, GATE_UP = (512, 256, 256), (1536, 1536)


class Down(torch.autograd.Function):
    """x A^T of all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(x, factor)
        ctx.a = a
        return torch.bmm(x, a.transpose(1, 2)) * factor  # (S, t, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, factor = ctx.saved_tensors
        dlow = gradients[0] * factor
        ctx.a.grad.baddbmm_(dlow.transpose(1, 2), x)
        return torch.bmm(dlow, ctx.a), None, None


class Up(torch.autograd.Function):
    """x W^T + low B of one of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, b: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(low)
        ctx.b, ctx.weight = b, weight
        return (x @ weight.T).baddbmm_(low, b)  # (S, t, out)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (low,) = ctx.saved_tensors
        ctx.b.grad.baddbmm_(low.transpose(1, 2), gradients[0])
        return gradients[0] @ ctx.weight, torch.bmm(gradients[0], ctx.b.transpose(1, 2)), None, None


def ways(streams: int, tokens: int, outputs: Sequence[int]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The projections as the loop computes them, and with A in one product."""
    x = torch.randn(streams, tokens, WIDTH, requires_grad=True)
    bases = [nn.Linear(WIDTH, out, bias=False).requires_grad_(False) for out in outputs]
    a = [leaf(torch.randn(streams, RANK, WIDTH)) for _ in outputs]
    b = [leaf(torch.randn(streams, RANK, out)) for out in outputs]
    side_by_side = leaf(torch.randn(streams, RANK * len(outputs), WIDTH))
    gradients, factor = [torch.randn(streams, tokens, out) for out in outputs], torch.ones(streams, 1, 1)

    def apart() -> None:
        x.grad = None
        each = zip(a, b, bases, strict=True)
        torch.autograd.backward(
            [low_rank(x, one, two, factor, slice(0, streams), RANK, base=base) for one, two, base in each], gradients
        )

    def together() -> None:
        x.grad = None
        low: Tensor = Down.apply(x, side_by_side, factor)
        each = zip(low.split(RANK, dim=2), b, bases, strict=True)
        torch.autograd.backward([Up.apply(x, part, two, base.weight) for part, two, base in each], gradients)

    return apart, together


def main() -> None:
    for streams, tokens in ((1, 16), (1, 64), (8, 16), (8, 64), (8, 840)):
        qkv, qkv_fused, up, up_fused = medians(*ways(streams, tokens, QKV), *ways(streams, tokens, GATE_UP))
        ids = [random.Random(0).randrange(3, 1000) for _ in range(tokens)]
        (tick,) = medians(loop_of(wide(False), [[Tokens(ids, ids, 0)] * 8] * streams, 1, RANK).tick)
        saved = LAYERS * (qkv - qkv_fused + up - up_fused)
        print(
            f"{streams} x {tokens}: q, k, v {qkv * 1e3:.2f} -> {qkv_fused * 1e3:.2f} ms; gate, up {up * 1e3:.2f} -> {up_fused * 1e3:.2f} ms; "
            f"a step of {tick * 1e3:.0f} ms would save {saved / tick:.1%}",
            flush=True,
        )


if __name__ == "__main__":
    quieten()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    main()
