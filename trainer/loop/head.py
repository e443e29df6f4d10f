"""From hidden states to losses: the head is computed where a token is supervised, in chunks, so that logits of few tokens exist at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from trainer.loop.plan import Pass

LOGITS_BYTES = 256 << 20
"""Bound on a chunk's logits in fp32."""


class Loss(Protocol):
    """A loss of single tokens.  Streams that share one object share its calls."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(m, V), (m,) -> (m,)"""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class NegativeLogLikelihood:
    """Cross entropy in nats; in fp32 where the logits are shorter."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(logits if logits.dtype is torch.float64 else logits.float(), targets, reduction="none")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert not state


NLL = NegativeLogLikelihood()


class _Given(nn.Module):
    """Stands where a model has its decoder and returns the hidden states that it is given."""

    hidden: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.hidden)


class Head:
    """A causal model in two halves: ids -> hidden states, hidden states -> logits with all that the family does to them (caps, scales)."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.prefix = model.base_model_prefix
        self.decoder: nn.Module = model.base_model
        self.given = _Given()
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        self.chunk_tokens = max(1, LOGITS_BYTES // (4 * self.vocabulary))

    def hidden(self, ids: Tensor) -> Tensor:
        """(R, T) -> (R, T, d)"""
        states: Tensor = self.decoder(input_ids=ids, use_cache=False)[0]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """(m, d) -> (m, V)"""
        self.given.hidden = hidden.unsqueeze(0)
        setattr(self.model, self.prefix, self.given)
        try:
            logits: Tensor = self.model(input_ids=None, use_cache=False).logits
        finally:
            setattr(self.model, self.prefix, self.decoder)
            del self.given.hidden
        return logits.squeeze(0)

    def backward(self, hidden: Tensor, current: Pass, losses: Sequence[Loss], sums: Tensor) -> None:
        """Adds the gradient of every row's weighted loss to the adapters, and each stream's sum of its tokens' losses to `sums` (slots,).

        Each chunk goes through the head forth and back at once; the decoder's backward pass is one for all of them.
        """
        picked = hidden.flatten(0, 1).index_select(0, current.positions)  # (M, d)
        gradient = torch.empty_like(picked)
        for at in range(0, len(picked), self.chunk_tokens):
            part = slice(at, at + self.chunk_tokens)
            leaf = picked[part].detach().requires_grad_()
            nats = per_token(self.logits(leaf), current.targets[part], current.owners[part], losses)
            (nats * current.weights[part].to(nats.dtype)).sum().backward()  # type: ignore[no-untyped-call]
            assert leaf.grad is not None
            gradient[part] = leaf.grad
            sums.index_add_(0, current.owners[part], nats.detach().to(sums.dtype))
        picked.backward(gradient)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def evaluate(self, current: Pass, losses: Sequence[Loss], sums: Tensor) -> None:
        """As `backward`, without gradients."""
        picked = self.hidden(current.ids).flatten(0, 1).index_select(0, current.positions)
        for at in range(0, len(picked), self.chunk_tokens):
            part = slice(at, at + self.chunk_tokens)
            nats = per_token(self.logits(picked[part]), current.targets[part], current.owners[part], losses)
            sums.index_add_(0, current.owners[part], nats.to(sums.dtype))


def per_token(logits: Tensor, targets: Tensor, owners: Tensor, losses: Sequence[Loss]) -> Tensor:
    """(m,) Each token's loss by the loss of its stream; `losses` by slot."""
    kinds = list({id(loss): loss for loss in losses}.values())
    if len(kinds) == 1:
        return kinds[0](logits, targets)
    nats = torch.zeros(
        len(targets), dtype=logits.dtype if logits.dtype is torch.float64 else torch.float32, device=logits.device
    )
    for kind in kinds:
        slots = torch.tensor([slot for slot, loss in enumerate(losses) if loss is kind], device=owners.device)
        at = torch.isin(owners, slots).nonzero().squeeze(1)
        if len(at):
            nats = nats.index_copy(0, at, kind(logits.index_select(0, at), targets.index_select(0, at)).to(nats.dtype))
    return nats
