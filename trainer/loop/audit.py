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
    own, everybody = {stream: streams.index(stream) for stream in due}, [1.0] * len(streams)
    current = Pass.of(_rows(streams, everybody), layers.device)
    with torch.no_grad():
        bare = head.hidden(current.ids).flatten(0, 1)
        with layers.plan.running(current):
            adapted = head.hidden(current.ids).flatten(0, 1)
        if not bool(adapted.isfinite().all()):
            return  # the loss of its next step says so
        places = {stream: current.positions[current.owners == slot] for stream, slot in own.items()}
        unchanged = [s for s, at in places.items() if torch.equal(head.logits(bare[at]), head.logits(adapted[at]))]
    yield from ((stream, "the adapter does not change the base's logits") for stream in unchanged)
    crossing = any(_crosses(factors, streams, layers, head) for factors in _factors(len(streams), layers.device))
    given = {} if crossing else _given(everybody, streams, layers, head)
    for stream, slot in own.items():
        if crossing:  # whose row it comes from shows when that one's alone counts
            given = _given([float(at == slot) for at in range(len(streams))], streams, layers, head)
        for name, layer in layers.stacked.items():
            if layer.pairs[slot] and not given[name][slot]:
                yield stream, f"{name} has no gradient"
            if crossing:
                others = [other.name for at, other in enumerate(streams) if given[name][at] and at != slot]
                yield from ((stream, f"{name}: {stream.name}'s rows give a gradient to {other}") for other in others)


def _rows(streams: Sequence[Stream], weights: Sequence[float]) -> list[Row]:
    rows = []
    for slot, (stream, weight) in enumerate(zip(streams, weights, strict=True)):
        if window := stream.window or stream.before:
            ids = window.micro_batches[0][0].ids[:ROW_TOKENS]
            rows.append(Row(slot, ids, ids, weight, key=slot, everywhere=stream.loss.everywhere))
    return rows


def _backward(weights: Sequence[float], streams: Sequence[Stream], layers: Layers, head: Head) -> None:
    """Of each slot's row, which counts as much as its weight."""
    current, losses = Pass.of(_rows(streams, weights), layers.device), [stream.loss for stream in streams]
    with layers.plan.running(current):
        head.backward(head.hidden(current.ids), current, losses, head.sums(losses))


def _given(weights: Sequence[float], streams: Sequence[Stream], layers: Layers, head: Head) -> dict[str, list[bool]]:
    """Whether each slot has a gradient, by layer.

    A stream that has just turned NaN has NaN for a gradient even of rows that do not count: nobody gave it that.
    """
    with _own_gradients(layers):
        _backward(weights, streams, layers, head)
        return {
            name: torch.stack([_gradient(stack).flatten(1).nan_to_num(0, 0, 0).any(1) for stack in layer.stacks])
            .any(0)
            .tolist()
            for name, layer in layers.stacked.items()
        }


DIGIT = 8
"""The largest factors of two leave the range of fp16 with more of them."""


def _factors(slots: int, device: torch.device) -> Iterator[Tensor]:
    """Powers of two for each slot; any two slots have different ones in one of them, as their numbers differ in a digit."""
    numbers, digit = torch.arange(slots, device=device), 1
    while digit < slots:
        yield 2.0 ** (numbers // digit % DIGIT)
        digit *= DIGIT


def _crosses(factors: Tensor, streams: Sequence[Stream], layers: Layers, head: Head) -> bool:
    """Whether some slot's gradient does not grow as the weight of its own row does.

    A power of two changes no bit of a mantissa: what is a slot's own is, to the bit, what it was, times that.
    """
    with _own_gradients(layers) as stacks:
        _backward([1.0] * len(streams), streams, layers, head)
        for stack in stacks:
            _gradient(stack).mul_(-factors.view(-1, *[1] * (stack.dim() - 1)))
        _backward(factors.tolist(), streams, layers, head)
        return any(bool(_gradient(stack).any()) for stack in stacks)


def _gradient(stack: Tensor) -> Tensor:
    assert stack.grad is not None
    return stack.grad


@contextmanager
def _own_gradients(layers: Layers) -> Iterator[list[Tensor]]:
    """The stacks, with zeros for gradients; what the streams have gathered is put aside and back."""
    stacks = [stack for layer in layers.stacked.values() for stack in layer.stacks]
    gathered = [stack.grad for stack in stacks]
    for stack in stacks:
        stack.grad = torch.zeros_like(stack)
    try:
        yield stacks
    finally:
        for stack, gradient in zip(stacks, gathered, strict=True):
            stack.grad = gradient
