"""A place where control adapters stand: what they add to what a site adds to the residual stream, for all streams in stacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.control.forms import MIRROR
from trainer.control.sites import Site
from trainer.data.classes import NEUTRAL
from trainer.loop.layer import Pair, Stacked, dropped, leaf, move
from trainer.loop.low_rank import low_rank, picked
from trainer.loop.plan import Pass, Plan


class _Neutral(torch.autograd.Function):
    """Returns u; on the way back w |u|^2 / |x|^2 of each token has counted as a part of the loss, wherever the graph is cut."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(u, x, weights)
        return u.view_as(u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        u, x, weights = ctx.saved_tensors
        wide = x.to(u.dtype)
        size = wide.square().sum(-1, keepdim=True).clamp(min=torch.finfo(u.dtype).tiny)
        share = u.square().sum(-1, keepdim=True) / size
        return gradients[0] + 2 * weights * u / size, (-2 * weights * share * wide / size).to(x.dtype), None


class StackedSite(Stacked):
    """Adds by a hook on the site, so that no module of the base is replaced and no name changes."""

    def __init__(self, site: nn.Module, kind: Site, size: int, plan: Plan, number: int) -> None:
        super().__init__(plan, number)
        self.kind, self.size = kind, size
        self.hook = site.register_forward_hook(self._steered, with_kwargs=True)

    def stack(self, pairs: Sequence[Pair | None], dtype: torch.dtype, device: torch.device) -> None:
        """Makes room for the pairs by slot and moves them in, with the gradients that they have gathered."""
        self.begin(pairs, dtype, device)
        shapes = (self.rank, self.size), (self.rank, self.size), (self.rank,)
        self.a, self.b, self.s = self.stacks = tuple(
            leaf(torch.zeros(len(pairs), *shape, dtype=dtype, device=device)) for shape in shapes
        )
        for slot, pair in enumerate(pairs):
            if pair:
                move(pair.a, self.a, lambda stack, s=slot, r=pair.rank: stack[s, :r])
                second = self.s if pair.form == "spectral" else self.b
                move(pair.b, second, lambda stack, s=slot, r=pair.rank: stack[s, :r])
        forms = [pair.form if pair and pair.form else "spectral" for pair in pairs]
        mirror = torch.tensor([MIRROR[form] for form in forms]).to(self.scale).view_as(self.scale)
        is_mapped = torch.tensor([form != "spectral" for form in forms]).to(self.scale).view_as(self.scale)
        self.first = self.scale / (1 + mirror.abs()) * is_mapped
        self.second = self.scale * mirror / 2

    def _steered(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        current = self.plan.current
        if current is None or not current.is_adapted or not self.used(current):
            return output
        y: Tensor = output[0] if isinstance(output, tuple) else output  # (R, T, H)
        x = y - (given[0] if given else named["hidden_states"]) if self.kind == "block" else y
        added = self._added(x, current)
        if (weights := self._neutral_weights(current)) is not None:
            added = _Neutral.apply(added, x, weights)  # type: ignore[no-untyped-call]
        whole = (y + added).to(y.dtype)  # added in the adapters' precision, rounded once
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    def _added(self, x: Tensor, current: Pass) -> Tensor:
        """(R, T, H)"""
        used, rank = self.used(current), max(pair.rank for pair in self.used(current))
        if self.drops:
            x = dropped(x, current, self.pairs, self.number)
        blocks = x.reshape(len(current.blocks), -1, self.size)  # (S, t, H)
        signs = self._signs(current)
        added = torch.zeros((), dtype=self.a.dtype, device=x.device)
        if any(pair.form != "spectral" for pair in used):
            added = added + self._mapped(blocks, self.a, self.b, self.first, signs, current, rank)
        if any(MIRROR[pair.form] for pair in used if pair.form):
            added = added + self._mapped(blocks, self.b, self.a, self.second, signs, current, rank)
        if any(pair.form == "spectral" for pair in used):
            added = added + self._spectral(blocks, signs, current, rank)
        return added.reshape(x.shape)

    def _signs(self, current: Pass) -> Tensor:
        """(S, t, 1), or ones (S, 1, 1)."""
        if current.classes is None:
            return torch.ones(len(current.blocks), 1, 1, dtype=self.a.dtype, device=self.a.device)
        return current.classes.sign().to(self.a.dtype).reshape(len(current.blocks), -1, 1)

    def _neutral_weights(self, current: Pass) -> Tensor | None:
        """(R, T, 1) Of what is added to neutral tokens; None where it does not count."""
        factors = [pair.neutral if (pair := self.pairs[row.slot]) else 0.0 for row in current.rows]
        if current.classes is None or not any(factors):
            return None
        each = [factor * row.weight for factor, row in zip(factors, current.rows, strict=True)]
        weights = torch.tensor(each, dtype=self.a.dtype, device=self.a.device)[:, None]
        return (weights * (current.classes.abs() == NEUTRAL)).unsqueeze(-1)

    def _mapped(
        self, x: Tensor, a: Tensor, b: Tensor, scale: Tensor, signs: Tensor, current: Pass, rank: int
    ) -> Tensor:
        factor = picked(scale, current.slots) * signs
        return low_rank(x, a, b, factor, current.slots, rank)

    def _spectral(self, x: Tensor, signs: Tensor, current: Pass, rank: int) -> Tensor:
        """(S, t, H) Zeros where a block's adapter is another one."""
        mine = [at for at, slot in enumerate(current.blocks) if (pair := self.pairs[slot]) and pair.form == "spectral"]
        slots, at = (torch.tensor(of, device=x.device) for of in ([current.blocks[one] for one in mine], mine))
        q, s = (stack[:, :rank].index_select(0, slots) for stack in (self.a, self.s))  # (S', r, H), (S', r)
        low = torch.bmm(x[at].to(q.dtype), q.transpose(1, 2))  # (S', t, r)
        added = torch.bmm(low * torch.expm1(signs[at] * s[:, None, :]), q)
        return torch.zeros(x.shape, dtype=q.dtype, device=x.device).index_copy(0, at, added)
