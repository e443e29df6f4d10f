"""Held-out loss and accuracy: of the supervised tokens of each row, and of all rows together, each token counted once and no padding counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import NamedTuple, cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import ParamWrapper
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from swarm.policy.fitting import JUDGED_LOGITS_BYTES, judged_tokens
from trainer.control.tuner import signed
from trainer.data.classes import predicted
from trainer.data.tokens import IGNORED, Tokens
from trainer.device import widest
from trainer.loop.threads import computed, may_compute_at_once

Logits = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor, Sequence[Tokens], torch.Tensor], torch.Tensor]
"""(B, K, V) of a model for (B, T) ids, their mask, and the rows that they are of, at K of their places."""


def plain_logits(
    model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor, rows: Sequence[Tokens], places: torch.Tensor
) -> torch.Tensor:
    return logits_at(places, model, input_ids=ids, attention_mask=mask)


def logits_at(places: torch.Tensor, model: torch.nn.Module, **given: torch.Tensor) -> torch.Tensor:
    """(B, K, V) at places (K,) counted from the end: the head computes no others, where the model's code can be told."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    if "logits_to_keep" in signature(whole.forward).parameters:
        found: torch.Tensor = model(**given, use_cache=False, logits_to_keep=places).logits
        return found
    found = model(**given, use_cache=False).logits
    return found[:, places]


def counted_logits(
    logits: Logits,
    model: torch.nn.Module,
    ids: torch.Tensor,
    mask: torch.Tensor,
    rows: Sequence[Tokens],
    counted: torch.Tensor,
) -> torch.Tensor:
    """(n, V) Where the next token is counted, (B, T-1), row after row."""
    is_kept = counted.any(0)
    # From the end: learned prompts stand before a row's own tokens.
    places = is_kept.nonzero().squeeze(1) - ids.shape[1]
    return logits(model, ids, mask, rows, places)[counted[:, is_kept]]


class RowLoss(NamedTuple):
    nats: float
    """Summed over the supervised tokens; may be NaN or infinite, which the caller judges."""
    tokens: int
    hits: int | None = None
    """Supervised tokens that the model finds likeliest; None of a loss that predicts none."""


def mean_loss(losses: Sequence[RowLoss]) -> float:
    """Nats per supervised token, of all rows together."""
    return sum(row.nats for row in losses) / sum(row.tokens for row in losses)


def held_out_figures(losses: Sequence[RowLoss]) -> dict[str, float]:
    """Of all rows together."""
    found, hits = {"eval_loss": mean_loss(losses)}, [row.hits for row in losses if row.hits is not None]
    if len(hits) == len(losses):
        found["eval_token_accuracy"] = sum(hits) / sum(row.tokens for row in losses)
    return found


def held_out_loss(model: torch.nn.Module, rows: Sequence[Tokens], check: Callable[[], None]) -> float:
    """Token-weighted mean."""
    return mean_loss(row_losses(model, rows, check))


def row_losses(
    model: torch.nn.Module,
    rows: Sequence[Tokens],
    check: Callable[[], None],
    logits: Logits = plain_logits,
    *,
    at_once: bool = True,
) -> list[RowLoss]:
    """One for each row, in their order.  `check` is called between batches and may raise.

    `at_once`: several threads may ask for `logits`.
    """
    device = next(model.parameters()).device
    vocabulary = int(model.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]  # every causal model has it
    was_training = model.training
    model.eval()
    tokens = min(judged_tokens(on_gpu=device.type != "cpu"), JUDGED_LOGITS_BYTES // (4 * vocabulary))
    are_short = (
        max((len(row.ids) for row in rows), default=0) <= tokens // AT_ONCE
    )  # else two would take twice the memory
    threads = _threads(model) if at_once and are_short else 1
    batches = _batches(rows, tokens // threads)
    found: dict[int, RowLoss] = {}

    def losses(batch: list[int]) -> list[RowLoss]:
        return _losses(model, [rows[at] for at in batch], device, logits)

    try:
        with computed(losses, batches, min(threads, len(batches))) as of_batches:
            for batch in batches:
                check()
                found |= zip(batch, next(of_batches), strict=True)
    finally:
        model.train(was_training)
    return [found[at] for at in range(len(rows))]


@torch.no_grad()
def _losses(model: torch.nn.Module, rows: Sequence[Tokens], device: torch.device, logits_of: Logits) -> list[RowLoss]:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)  # (B, T)
    labels = torch.full((len(rows), length), IGNORED)  # (B, T)
    mask = torch.zeros(len(rows), length, dtype=torch.long)  # (B, T)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        labels[index, : len(row.ids)] = torch.tensor(row.labels)
        mask[index, : len(row.ids)] = 1
    labels = labels[:, 1:].to(device)  # the token at t is predicted from those before it
    counted = labels != IGNORED
    with signed(model, _signs(rows, length).to(device)):
        chosen = counted_logits(logits_of, model, ids.to(device), mask.to(device), rows, counted).float()  # (n, V)
    nats = torch.zeros(labels.shape, dtype=widest(device), device=device)  # (B, T-1)
    hits = torch.zeros_like(counted)  # (B, T-1)
    nats[counted] = cross_entropy(chosen, labels[counted], reduction="none").to(nats.dtype)
    hits[counted] = chosen.argmax(-1) == labels[counted]
    sums = (each.sum(1).tolist() for each in (nats, counted, hits))
    return [RowLoss(*row) for row in zip(*sums, strict=True)]


def _signs(rows: Sequence[Tokens], length: int) -> torch.Tensor:
    """(B, T) For a control adapter: towards the class of each token that is predicted, or away from it."""
    classes = [predicted(row.classes, len(row.ids)) for row in rows]
    return torch.tensor([[*one, *[0] * (length - len(one))] for one in classes]).sign()


AT_ONCE = 2
"""Batches on a CPU, each with as many times fewer tokens: small tensors keep one core busy, not all of them."""


def _threads(model: torch.nn.Module) -> int:
    """A model that a pass changes is asked by one thread.

    So are experts with an adapter: PEFT puts it on the parameter for each pass.
    """
    whole, configs = model, []
    if isinstance(model, PeftModel):
        whole, configs = model.get_base_model(), [*model.peft_config.values()]
    stays = (
        all(type(config) is LoraConfig for config in configs)
        and not any(isinstance(module, ParamWrapper) for module in model.modules())
        and all(value.is_floating_point() for value in model.parameters())  # 4 bits are laid out anew by the first pass
        and may_compute_at_once(cast("PreTrainedModel", whole))
    )
    return min(AT_ONCE, torch.get_num_threads()) if stays else 1


def _batches(rows: Sequence[Tokens], tokens: int) -> list[list[int]]:
    """Indices of rows of like length together, as many as hold so many tokens with their pads, at least one."""
    batches: list[list[int]] = []
    for at in sorted(range(len(rows)), key=lambda at: len(rows[at].ids)):
        if batches and len(rows[at].ids) * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches
