"""Is a stream really training?  Looked at once it has stepped: weights that never move pass unseen for thousands of steps elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.loop.adapter import Layers
from trainer.loop.head import Head
from trainer.loop.plan import Pass, Row
from trainer.loop.stream import Failed, Stream

ROW_TOKENS = 8
"""Of each stream's row that is looked at: enough for every layer, and nothing for memory."""


LARGEST = 1e6
"""Of a weight: no adapter that works comes near it."""


SECOND = ("lora_B.weight", "lora_S")
"""Tensors that begin with zeros."""


def audit(stream: Stream, streams: Sequence[Stream], layers: Layers, head: Head) -> list[str]:
    """What is wrong with a stream that has just stepped, each with the tensor's name; empty where it is sound.

    `streams` by slot; one with clones stands there several times, first for its own adapter.
    """
    return [*_of_tensors(stream, layers), *_of_optimizer(stream), *_of_rows(stream, streams, layers, head)]


def refuse_rate(stream: Stream) -> None:
    """Raises Failed where no weight has moved, and where one is infinite or as good as that: its gradients vanish in rounding."""
    refuse_huge(stream)
    values = dict(stream.adapter.named_parameters())
    if not any(bool(value.any()) for name, value in values.items() if name.endswith(SECOND)):
        raise unmoved(stream)


def unmoved(stream: Stream) -> Failed:
    if (decay := stream.decay) and decay.penalty == "frobenius" and decay.strength:  # both grow with the learning rate
        return Failed(
            f"lora_weight_decay took off all that step {stream.step} added", "lower it, or decay by `nuclear`"
        )
    return Failed(
        f"no weight moved at step {stream.step}", "raise learning_rate, or look at the rows with `swarm show`"
    )


def refuse_huge(stream: Stream) -> None:
    """Raises Failed where a weight is infinite or as good as that."""
    refuse_not_finite(stream)
    largest = max(float(value.detach().abs().max()) for value in stream.adapter.parameters())
    if largest > LARGEST:
        raise Failed(f"the adapter's weights grew to {largest:.0e} at step {stream.step}", "lower learning_rate")


def refuse_not_finite(stream: Stream) -> None:
    if not all(bool(value.isfinite().all()) for value in stream.adapter.parameters()):
        raise Failed(f"adapter was not finite at step {stream.step}", "lower learning_rate")


def _of_tensors(stream: Stream, layers: Layers) -> Iterator[str]:
    for name, layer in layers.stacked.items():
        pair = stream.adapter.pairs.get(name)
        held = {stack.untyped_storage().data_ptr() for stack in layer.stacks}
        if pair and pair.b.untyped_storage().data_ptr() not in held:
            yield f"{name} computes with another tensor than the one that the optimizer steps"
    for name, value in stream.adapter.named_parameters():
        if value.device.type != layers.device.type or value.dtype is not layers.dtype:
            yield f"{name} is {value.dtype} on {value.device}, not {layers.dtype} on {layers.device}"
        if name.endswith(SECOND) and not value.any():
            yield f"{name} has not moved from zero"


def _of_optimizer(stream: Stream) -> Iterator[str]:
    times = Counter(id(value) for group in stream.optimizer.param_groups for value in group["params"])
    for name, value in stream.adapter.named_parameters():
        if times[id(value)] != 1:
            yield f"{name} is {times[id(value)]} times in the optimizer, not once"


def _of_rows(stream: Stream, streams: Sequence[Stream], layers: Layers, head: Head) -> Iterator[str]:
    """One row of each stream goes through together, and only this stream's counts: its gradient is its own, and the others have none."""
    rows, own = [], streams.index(stream)
    for slot, other in enumerate(streams):
        window = other.window or other.before
        if window:
            ids = window.micro_batches[0][0].ids[:ROW_TOKENS]
            rows.append(Row(slot, ids, ids, float(slot == own), key=slot, everywhere=other.loss.everywhere))
    current = Pass.of(rows, layers.device)
    mine = current.positions[current.owners == own]
    with torch.no_grad():
        bare = head.logits(head.hidden(current.ids).flatten(0, 1)[mine])
    with _own_gradients(layers), layers.plan.running(current):
        hidden = head.hidden(current.ids)
        if not bool(hidden.isfinite().all()):
            return  # the loss of its next step says so
        with torch.no_grad():
            if torch.equal(bare, head.logits(hidden.flatten(0, 1)[mine])):
                yield "the adapter does not change the base's logits"
        losses = [other.loss for other in streams]
        head.backward(hidden, current, losses, head.sums(losses))
        yield from _of_gradients(stream, streams, layers)


def _of_gradients(stream: Stream, streams: Sequence[Stream], layers: Layers) -> Iterator[str]:
    own = streams.index(stream)
    for name, layer in layers.stacked.items():
        given = torch.stack([_gives_numbers(stack) for stack in layer.stacks]).any(0).tolist()
        for slot, (pair, other, moved) in enumerate(zip(layer.pairs, streams, given, strict=True)):
            if moved and slot != own:
                yield f"{name}: {stream.name}'s rows give a gradient to {other.name}"
            if pair and slot == own and not moved:
                yield f"{name} has no gradient"


def _gives_numbers(stack: Tensor) -> Tensor:
    """(slots,) A stream that has just turned NaN has NaN for a gradient even of rows that do not count: nobody gave it that."""
    assert stack.grad is not None
    return stack.grad.flatten(1).nan_to_num(0, 0, 0).any(1)


@contextmanager
def _own_gradients(layers: Layers) -> Iterator[None]:
    """What the streams have gathered is put aside and back."""
    stacks = [stack for layer in layers.stacked.values() for stack in layer.stacks]
    gathered = [stack.grad for stack in stacks]
    for stack in stacks:
        stack.grad = torch.zeros_like(stack)
    try:
        yield
    finally:
        for stack, gradient in zip(stacks, gathered, strict=True):
            stack.grad = gradient
