"""The one layer of the loop: a frozen linear layer, and the low-rank adapters of all streams in stacks beside it.

Every block of rows picks its own A, B and magnitude by index, so that streams of any rank and kind share one forward and one
backward pass.  A rank below the largest is filled up with zeros: a zero row of A meets a zero row of B, so both gradients are
zero and the fill stays zero.  LoRA: arXiv 2106.09685; rsLoRA: 2312.03732; DoRA: 2402.09353, its norm detached as in section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.control.forms import Form
from trainer.device import widest
from trainer.loop.dequantised import weight_of
from trainer.loop.low_rank import is_its_matrix, low_rank, picked
from trainer.loop.plan import Pass, Plan


class Pair:
    """One stream's tensors on one layer.  They are views into the layer's stacks, and so are their gradients.

    B is held as PEFT's lora_B transposed, so that its view is contiguous: bitsandbytes' optimizers replace other tensors by copies.
    """

    def __init__(
        self,
        a: Tensor,
        b: Tensor,
        magnitude: Tensor | None,
        scale: float,
        dropout: float,
        fixed: tuple[Tensor, Tensor] | None = None,
        form: Form | None = None,
    ) -> None:
        self.a = nn.Parameter(a)  # (rank, in), or Q^T of a spectral control adapter
        self.b = nn.Parameter(b)  # (rank, out), or S (rank,)
        self.magnitude = None if magnitude is None else nn.Parameter(magnitude)  # (out,), of DoRA
        self.scale = scale
        self.dropout = dropout
        self.fixed = fixed
        """Further rows of A and of B that are added too and never trained: what an initialisation takes from the base, or another adapter."""
        self.is_on_start = False
        """What is fixed is the adapter on which the stream begins, and so a part of its base."""
        self.form = form
        """Of a control adapter; None on a linear layer."""
        self.neutral = 0.0
        """Weight of |u|^2 / |x|^2 on neutral tokens, of a control adapter that adds u to x."""

    @property
    def names(self) -> tuple[str, str]:
        """Of A and B in PEFT's file."""
        return ("lora_Q", "lora_S") if self.form == "spectral" else ("lora_A.weight", "lora_B.weight")

    @property
    def rank(self) -> int:
        return len(self.a) + (len(self.fixed[0]) if self.fixed else 0)

    def parameters(self) -> list[nn.Parameter]:
        return [value for value in (self.a, self.b, self.magnitude) if value is not None]


class Stacked(nn.Module):
    """A place in the base where streams have adapters: their tensors by slot."""

    def __init__(self, plan: Plan, number: int) -> None:
        super().__init__()
        self.plan = plan
        self.number = number
        """Keys the layer's dropout."""
        self.pairs: Sequence[Pair | None] = ()
        self.stacks: tuple[Tensor, ...] = ()
        """Whose rows are views of what streams train."""

    def begin(self, pairs: Sequence[Pair | None], dtype: torch.dtype, device: torch.device) -> None:
        """Takes the pairs by slot; None: no adapter here."""
        self.pairs = pairs
        self.drops = any(pair.dropout for pair in pairs if pair)
        self.ranks = [pair.rank if pair else 0 for pair in pairs]
        self.rank = max(self.ranks, default=0)
        scale = torch.tensor([pair.scale if pair else 0.0 for pair in pairs], dtype=dtype, device=device)
        self.scale = scale.view(-1, 1, 1)  # (slots, 1, 1)

    @property
    def slot_bytes(self) -> int:
        """Of the tensors of one slot and their gradients."""
        return sum(2 * stack.nbytes // len(stack) for stack in self.stacks)

    def used(self, current: Pass) -> list[Pair]:
        return [pair for slot in current.used if (pair := self.pairs[slot])]

    def renorm(self, slot: int) -> None:
        """After a step of a DoRA stream."""


class StackedLinear(Stacked):
    """base(x) plus what the adapter of each row's stream adds."""

    def __init__(self, base: nn.Module, plan: Plan, number: int) -> None:
        super().__init__(plan, number)
        self.base = base
        self.squares: Tensor | None = None
        """(out,) |W|^2 by row, once a DoRA stream needs it."""
        self.out_features, self.in_features = shape_of(base)

    def stack(self, pairs: Sequence[Pair | None], dtype: torch.dtype, device: torch.device) -> None:
        """Makes room for the pairs by slot and moves them in, with the gradients that they have gathered; None: no adapter here.

        Slots of DoRA come last: the rows from `first_dora` on are one view.
        """
        self.begin(pairs, dtype, device)
        dora = [slot for slot, pair in enumerate(pairs) if pair and pair.magnitude is not None]
        self.first_dora = min(dora, default=len(pairs))
        a = torch.zeros(len(pairs), self.rank, self.in_features, dtype=dtype, device=device)
        b = torch.zeros(len(pairs), self.rank, self.out_features, dtype=dtype, device=device)
        magnitude = torch.ones(len(pairs), self.out_features, dtype=dtype, device=device)
        self.below = torch.zeros(len(pairs), self.rank, dtype=dtype, device=device)
        """(slots, rank) 1 where a row belongs to the adapter on which a stream begins."""
        self.norm = torch.ones_like(magnitude)
        """(slots, out) Of W + scale B A by row, as of the last step; 1 where it is not DoRA."""
        self.a, self.b, self.magnitude = self.stacks = tuple(leaf(value) for value in (a, b, magnitude))
        for slot, pair in enumerate(pairs):
            if pair:
                trained = len(pair.a)
                move(pair.a, self.a, lambda stack, s=slot, r=trained: stack[s, :r])
                move(pair.b, self.b, lambda stack, s=slot, r=trained: stack[s, :r])
                if pair.fixed:
                    for stack, rows in zip((self.a, self.b), pair.fixed, strict=True):
                        stack.detach()[slot, trained : pair.rank].copy_(rows)
                    self.below[slot, trained : pair.rank] = float(pair.is_on_start)
                if pair.magnitude is not None:
                    move(pair.magnitude, self.magnitude, lambda stack, s=slot: stack[s])
                    self.renorm(slot)

    @property
    def slot_bytes(self) -> int:
        return super().slot_bytes + self.norm.nbytes // len(self.norm)

    @torch.no_grad()
    def renorm(self, slot: int) -> None:
        """After a step of a DoRA stream: |W + s B A|^2 = |W|^2 + 2 s W.(B A) + s^2 |B A|^2 by row, without the matrix B A.

        Added up in fp64 where there is one: the layer computes with magnitude / norm - 1, which is nearly 0.
        """
        pair = self.pairs[slot]
        if pair is None or pair.magnitude is None:
            return
        a, b = (stack.detach()[slot, : pair.rank] for stack in (self.a, self.b))
        weight, s, wide = weight_of(self.base).to(a.dtype), pair.scale, widest(a.device)
        if self.squares is None:
            self.squares = weight.to(wide).square().sum(1)
        cross = (torch.mm(weight, a.T).T.to(wide) * b).sum(0)  # (out,)
        own = (torch.mm(torch.mm(a, a.T), b).to(wide) * b).sum(0)  # (out,)
        self.norm[slot] = (self.squares + 2 * s * cross + s * s * own).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        current = self.plan.current
        if current is None:
            return self.base(x)  # type: ignore[no-any-return]
        if not current.is_adapted:
            return self._with_what_is_below(x, self.base(x), current)
        rank = max(self.ranks[slot] for slot in current.used)
        if not rank:
            return self.base(x)  # type: ignore[no-any-return]
        z = dropped(x, current, self.pairs, self.number) if self.drops else x
        factor = picked(self.scale, current.slots)
        is_dora = current.blocks[-1] >= self.first_dora
        if not is_dora and is_its_matrix(self.base, x.dtype):
            return low_rank(z, self.a, self.b, factor, current.slots, rank, base=self.base, x=x)
        y, added = self.base(x), low_rank(z, self.a, self.b, factor, current.slots, rank)
        return self._joined(z, y, added, current) if is_dora else (y + added).to(y.dtype)

    @torch.no_grad()
    def _with_what_is_below(self, x: Tensor, y: Tensor, current: Pass) -> Tensor:
        """Returns y and what the adapters add on which streams begin, without those that are trained."""
        a, b, below = (picked(stack, current.slots) for stack in (self.a, self.b, self.below))
        factor = picked(self.scale, current.slots) * below[:, None, :]  # (S, 1, rank)
        blocks = x.reshape(len(current.blocks), -1, self.in_features)
        low = torch.bmm(blocks.to(a.dtype), a.transpose(1, 2)) * factor  # (S, t, rank)
        return (y + torch.bmm(low, b).reshape(y.shape)).to(y.dtype)

    def _joined(self, x: Tensor, y: Tensor, added: Tensor, current: Pass) -> Tensor:
        """Returns y + added; for DoRA y + (g - 1) W x + g added with g = magnitude / norm (both 1 where a slot of these has none)."""
        plain = sum(slot < self.first_dora for slot in current.blocks)
        slots = torch.tensor(current.blocks[plain:], device=y.device)
        g = (self.magnitude.index_select(0, slots) / self.norm.index_select(0, slots)).unsqueeze(1)  # (S', 1, out)
        blocks, whole, more = (each.reshape(len(current.blocks), -1, each.shape[-1]) for each in (x, y, added))
        without = self._base_of(blocks[plain:], whole[plain:], current)
        dora = (whole[plain:] + (g - 1) * without + g * more[plain:]).to(y.dtype)
        joined = torch.cat([(whole[:plain] + more[:plain]).to(y.dtype), dora]) if plain else dora
        return joined.reshape(y.shape)

    def _base_of(self, x: Tensor, y: Tensor, current: Pass) -> Tensor:
        """The base's output without its bias, for the inputs that dropout left: y again, where nothing was dropped."""
        if any(pair.dropout for slot in current.used if slot >= self.first_dora and (pair := self.pairs[slot])):
            y = self.base(x)
        return y if self.base.bias is None else y - self.base.bias  # type: ignore[operator]


def leaf(stack: Tensor) -> Tensor:
    """Its gradient exists from the start: backward passes add to it in place, and the views into it stay valid."""
    stack.requires_grad_().grad = torch.zeros_like(stack)
    return stack


def move(value: nn.Parameter, stack: Tensor, view: Any) -> None:
    place = view(stack.detach())
    place.copy_(value.detach())
    gradient = view(stack.grad)
    if value.grad is not None:
        gradient.copy_(value.grad)
    value.data, value.grad = place, gradient


def dropped(x: Tensor, current: Pass, pairs: Sequence[Pair | None], number: int) -> Tensor:
    """Returns x with the dropout of each row's stream; the mask is drawn on the row's own tokens by its own key, whatever it is batched with."""
    shares = [pair.dropout if row.key is not None and (pair := pairs[row.slot]) else 0.0 for row in current.rows]
    if not any(shares):
        return x
    keep = x.new_ones(x.shape)
    rows = keep.view(*current.ids.shape, -1)
    for mask, row, share in zip(rows, current.rows, shares, strict=True):
        if share and row.key is not None:
            draw_mask(mask[: len(row.ids)], share, row.key, number)
    return x * keep


def draw_mask(mask: Tensor, share: float, key: int, number: int) -> None:
    """Fills the mask (t, in) of one row on one layer: 0 for the share that is dropped, 1 / (1 - share) elsewhere."""
    generator = torch.Generator(mask.device).manual_seed(mixed(key, number))
    mask.bernoulli_(1 - share, generator=generator).div_(1 - share)


def mixed(*numbers: int) -> int:
    """One 32-bit seed of several numbers (the finaliser of SplitMix64 after each)."""
    value = 0
    for number in numbers:
        value = (value + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        value ^= value >> 31
    return value >> 32


def shape_of(base: nn.Module) -> tuple[int, int]:
    """(out, in)."""
    if isinstance(base, Conv1D):
        return base.nf, base.nx
    return int(base.out_features), int(base.in_features)  # type: ignore[arg-type]  # every other one is an nn.Linear
