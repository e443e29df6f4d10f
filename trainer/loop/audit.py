"""Is a stream really training?  Looked at once it has stepped: weights that never move pass unseen for thousands of steps elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

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


def audit(due: Sequence[Stream], streams: Sequence[Stream], layers: Layers, head: Head) -> dict[Stream, list[str]]:
    """What is wrong with each of the streams that have just stepped, with the tensor's name; nothing where it is sound.

    `streams` by slot; one with clones stands there several times, first for its own adapter.
    """
    found = {stream: [*_of_tensors(stream, layers), *_of_optimizer(stream)] for stream in due}
    for stream, fault in _of_rows(due, streams, layers, head):
        found[stream].append(fault)
    return found


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


def _of_rows(
    due: Sequence[Stream], streams: Sequence[Stream], layers: Layers, head: Head
) -> Iterator[tuple[Stream, str]]:
    """One row of each stream goes through together: does its adapter change it, and is its gradient its own and nobody else's?"""
    own = {stream: streams.index(stream) for stream in due}
    current = Pass.of(_rows(streams, [1.0] * len(streams)), layers.device)
    with torch.no_grad():
        bare = head.hidden(current.ids).flatten(0, 1)
        with layers.plan.running(current):
            adapted = head.hidden(current.ids).flatten(0, 1)
        if not bool(adapted.isfinite().all()):
            return  # the loss of its next step says so
        for stream, slot in own.items():
            mine = current.positions[current.owners == slot]
            if torch.equal(head.logits(bare[mine]), head.logits(adapted[mine])):
                yield stream, "the adapter does not change the base's logits"
    given = _gradients([1.0] * len(streams), streams, layers, head)
    if _is_own(given, streams, layers, head):
        for stream, slot in own.items():
            yield from ((stream, f"{name} has no gradient") for name in _unmoved(given, slot, layers))
        return
    for stream, slot in own.items():  # whose row it comes from shows when only that one's row counts
        alone = _gradients([float(at == slot) for at in range(len(streams))], streams, layers, head)
        yield from ((stream, f"{name} has no gradient") for name in _unmoved(alone, slot, layers))
        for name, gradients in alone.items():
            moved = [at for at, gives in enumerate(_gives_numbers(gradients)) if gives and at != slot]
            yield from ((stream, f"{name}: {stream.name}'s rows give a gradient to {streams[at].name}") for at in moved)


def _rows(streams: Sequence[Stream], weights: Sequence[float]) -> list[Row]:
    rows = []
    for slot, (stream, weight) in enumerate(zip(streams, weights, strict=True)):
        if window := stream.window or stream.before:
            ids = window.micro_batches[0][0].ids[:ROW_TOKENS]
            rows.append(Row(slot, ids, ids, weight, key=slot, everywhere=stream.loss.everywhere))
    return rows


Gradients = dict[str, list[Tensor]]
"""(slots, ...) Of a layer's stacks, by its name."""


def _gradients(weights: Sequence[float], streams: Sequence[Stream], layers: Layers, head: Head) -> Gradients:
    """Of each slot's row, which counts as much as its weight."""
    current, losses = Pass.of(_rows(streams, weights), layers.device), [stream.loss for stream in streams]
    with _own_gradients(layers) as gradients, layers.plan.running(current):
        head.backward(head.hidden(current.ids), current, losses, head.sums(losses))
        return gradients()


FACTORS = 8
"""Powers of two that a row is weighed with: more of them leave the range of fp16."""


def _is_own(given: Gradients, streams: Sequence[Stream], layers: Layers, head: Head) -> bool:
    """Whether each slot's gradient grows with the weight of its own row and with no other's.

    A factor of two changes no bit of a mantissa, so that it is to the bit what it was, times that.  Every two slots differ in some digit.
    """
    slots, digit = torch.arange(len(streams), device=layers.device), 1
    while digit < len(streams):
        factors = 2.0 ** (slots // digit % FACTORS)
        weighed = _gradients(factors.tolist(), streams, layers, head)
        for name, found in weighed.items():
            for after, before in zip(found, given[name], strict=True):
                if not torch.equal(after, before * factors.view(-1, *[1] * (before.dim() - 1)).to(before.dtype)):
                    return False
        digit *= FACTORS
    return True


def _unmoved(gradients: Gradients, slot: int, layers: Layers) -> list[str]:
    """The layers that the slot adapts, and that give it nothing."""
    return [
        name
        for name, layer in layers.stacked.items()
        if layer.pairs[slot] and not _gives_numbers(gradients[name])[slot]
    ]


def _gives_numbers(gradients: Sequence[Tensor]) -> list[bool]:
    """By slot.  A stream that has just turned NaN has NaN for a gradient even of rows that do not count: nobody gave it that."""
    found: list[bool] = torch.stack([one.flatten(1).nan_to_num(0, 0, 0).any(1) for one in gradients]).any(0).tolist()
    return found


@contextmanager
def _own_gradients(layers: Layers) -> Iterator[Callable[[], Gradients]]:
    """What the streams have gathered is put aside and back; gives what was gathered meanwhile."""
    stacks = [stack for layer in layers.stacked.values() for stack in layer.stacks]
    gathered = [stack.grad for stack in stacks]
    for stack in stacks:
        stack.grad = torch.zeros_like(stack)
    try:
        yield lambda: {
            name: [cast("Tensor", stack.grad) for stack in layer.stacks] for name, layer in layers.stacked.items()
        }
    finally:
        for stack, gradient in zip(stacks, gathered, strict=True):
            stack.grad = gradient
