"""From hidden states to losses: the head is computed where a token is supervised, in chunks, so that logits of few tokens exist at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from swarm.policy.fitting import LOGITS_BYTES
from trainer.device import widest
from trainer.loop.losses import by_probability, wide
from trainer.loop.parts import Loss, Predicted
from trainer.loop.plan import Pass, Plan


@dataclass(frozen=True)
class NegativeLogLikelihood(Loss):
    """Cross entropy in nats; in fp32 where the logits are shorter."""

    weighted: bool = False

    def __call__(self, tokens: Predicted) -> Tensor:
        nats = cross_entropy(wide(tokens.logits), tokens.targets, reduction="none")
        return by_probability(nats) if self.weighted else nats

    def reweighted(self) -> Loss:
        return WEIGHTED_NLL


NLL, WEIGHTED_NLL = NegativeLogLikelihood(), NegativeLogLikelihood(weighted=True)


class _Hidden(BaseModelOutputWithPastAndCrossAttentions):
    """Hidden states alone: of all else that a family's decoder returns (states, logits of routers) there is nothing."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Given(nn.Module):
    """Stands where a model has its decoder and returns the hidden states that it is given as inputs."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.__dict__["replaced"] = decoder  # not as a part: its weights are the model's

    @property
    def decoder(self) -> _Given:
        """OPT asks its model for the decoder."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Falcon-H1 keeps the scale of its logits in its decoder."""
        return getattr(self.__dict__["replaced"], name)

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> _Hidden:
        return _Hidden(last_hidden_state=inputs_embeds)


class Head:
    """A causal model in two halves: ids -> hidden states, hidden states -> logits with all that the family does to them (caps, scales)."""

    def __init__(self, model: PreTrainedModel, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        self.device = model.device  # which the model looks up anew each time
        self.decoder: nn.Module = model.base_model
        self.headed = copy(model)
        """The model's parts and settings, with what stands in for its decoder."""
        self.headed._modules = {**model._modules, model.base_model_prefix: _Given(self.decoder)}
        self.vocabulary = int(model.config.get_text_config().vocab_size)
        self.chunk_tokens = max(1, LOGITS_BYTES // (4 * self.vocabulary))

    def hidden(self, ids: Tensor) -> Tensor:
        """(R, T) -> (R, T, d)"""
        states: Tensor = self.decoder(input_ids=ids, use_cache=False)[0]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """(m, d) -> (m, V)"""
        logits: Tensor = self.headed(inputs_embeds=hidden.unsqueeze(0), use_cache=False).logits
        return logits.squeeze(0)

    def sums(self, losses: Sequence[Loss]) -> Tensor:
        """(slots, F) Zeros for the sums of each stream's loss and its parts; F is that of the loss with the most."""
        return torch.zeros(len(losses), _columns(losses), dtype=widest(self.device), device=self.device)

    def backward(self, hidden: Tensor, current: Pass, losses: Sequence[Loss], sums: Tensor) -> None:
        """Adds the gradient of every row's weighted loss to the adapters, and what its tokens' losses and their parts are to `sums`.

        Each chunk goes through the head forth and back at once; the decoder's backward pass is one for all of them.
        """
        picked = _at(hidden, current)  # (M, d)
        base = self._of_base(current, losses)
        gradient = torch.empty_like(picked)
        for part in self._chunks(picked):
            leaf = picked[part].detach().requires_grad_()
            nats = self._per_token(leaf, base, part, current, losses)
            nats.backward(_filled(current.weights[part].to(nats.dtype), nats.shape[1]))  # type: ignore[no-untyped-call]
            assert leaf.grad is not None
            gradient[part] = leaf.grad
            sums.index_add_(0, current.owners[part], nats.detach().to(sums.dtype))
        picked.backward(gradient)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def evaluate(self, current: Pass, losses: Sequence[Loss], sums: Tensor) -> None:
        """As `backward`, without gradients."""
        picked = _at(self.hidden(current.ids), current)
        base = self._of_base(current, losses)
        for part in self._chunks(picked):
            nats = self._per_token(picked[part], base, part, current, losses)
            sums.index_add_(0, current.owners[part], nats.to(sums.dtype))

    def _chunks(self, picked: Tensor) -> Iterator[slice]:
        return (slice(at, at + self.chunk_tokens) for at in range(0, len(picked), self.chunk_tokens))

    @torch.no_grad()
    def _of_base(self, current: Pass, losses: Sequence[Loss]) -> Tensor | None:
        """(M, d) Hidden states of each row's base where a loss needs them; None where none does.  Equal rows of one base go through it once."""
        wanting = [number for number, row in enumerate(current.rows) if losses[row.slot].needs_base]
        if not wanting:
            return None
        places: dict[tuple[int | None, tuple[int, ...]], int] = {}
        place_of = [0] * len(current.rows)  # what stands at rows that want nothing is used by nobody
        for number in wanting:
            row = current.rows[number]
            of_base = row.slot if row.is_on_start else None, tuple(row.ids)
            place_of[number] = places.setdefault(of_base, len(places))
        first = {place_of[number]: number for number in reversed(wanting)}
        numbers = [first[place] for place in range(len(places))]
        with self.plan.running(_of_bases(current, numbers)):
            hidden = self.hidden(current.ids[numbers])  # (R', T, d)
        at_row, at = current.positions // current.ids.shape[1], current.positions % current.ids.shape[1]
        return hidden[_index(place_of, hidden)[at_row], at]

    def _per_token(
        self, picked: Tensor, base: Tensor | None, part: slice, current: Pass, losses: Sequence[Loss]
    ) -> Tensor:
        """(m, F) Each token's loss by the loss of its stream, and its parts; `losses` by slot."""
        logits, targets, columns = self.logits(picked), current.targets[part], _columns(losses)
        kinds = list({id(loss): loss for loss in losses}.values())
        if len(kinds) == 1:
            found = Predicted(logits, targets, self._without_gradient(base, part, kinds[0]), _classes(current, part))
            return _filled(kinds[0](found), columns)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        nats = torch.zeros(len(targets), columns, dtype=dtype, device=logits.device)
        for kind in kinds:
            slots = _index([slot for slot, loss in enumerate(losses) if loss is kind], logits)
            at = torch.isin(current.owners[part], slots).nonzero().squeeze(1)
            if len(at):
                classes = _classes(current, part)
                mine = Predicted(
                    logits[at],
                    targets[at],
                    self._without_gradient(base, part, kind, at),
                    None if classes is None else classes[at],
                )
                nats = nats.index_copy(0, at, _filled(kind(mine), columns).to(dtype))
        return nats

    @torch.no_grad()
    def _without_gradient(
        self, base: Tensor | None, part: slice, loss: Loss, at: Tensor | None = None
    ) -> Tensor | None:
        """(m, V)"""
        if base is None or not loss.needs_base:
            return None
        return self.logits(base[part] if at is None else base[part][at])


def _of_bases(current: Pass, numbers: Sequence[int]) -> Pass | None:
    """Some rows of a pass on the bases of their streams; None where each of them is the bare one."""
    rows = [current.rows[number] for number in numbers]
    if not any(row.is_on_start for row in rows):
        return None
    return replace(Pass.of(rows, current.ids.device), is_adapted=False)


def _at(hidden: Tensor, current: Pass) -> Tensor:
    """(R, T, d) -> (M, d)"""
    return hidden.flatten(0, 1).index_select(0, current.positions)


def _classes(current: Pass, part: slice) -> Tensor | None:
    """(m,)"""
    return None if current.classes is None else current.classes.flatten()[current.positions[part]]


def _index(numbers: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device)


def _columns(losses: Sequence[Loss]) -> int:
    return max(len(loss.figures) for loss in losses)


def _filled(values: Tensor, columns: int) -> Tensor:
    """(m,) or (m, k) -> (m, columns)"""
    values = values.unsqueeze(1) if values.dim() == 1 else values
    return values if values.shape[1] == columns else pad(values, (0, columns - values.shape[1]))
