"""What each stream of a warm group takes beside the base: measured on the streams themselves, not estimated.

From step to step a stream keeps its slots of the stacks, with their gradients, and its optimizer's state.  Within a step pass
activations and logits: the most that the passes of one tick allocate, by the tokens of the fullest.  After two steps nothing
of it is allocated once and for all, so that none of it counts as a stream's.
"""

from __future__ import annotations

from itertools import accumulate
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from trainer.gpu_peak import GPU_PEAK
from trainer.loop.loop import Loop
from trainer.loop.stream import Stream

WARM_STEPS = 2
"""Before they are over, the optimizer makes its moments and libraries their buffers."""


class Taken(NamedTuple):
    """Bytes of a stream beside what its group shares."""

    kept: int
    """From step to step."""
    passing: int
    """Within a step, of its largest micro-batch."""


class WarmProbe:
    """Measures what each stream takes once all are warm, and again once another has joined and is."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self._first_steps: dict[Stream, int] = {}
        """Of those that train, as they were first seen."""
        self._measured: set[Stream] = set()

    def tick(self) -> dict[Stream, Taken] | None:
        """One tick of the loop and what it measured, nothing where memory did not hold it; None, and no tick, where it is not due.

        MPS counts no peak: there it never is.
        """
        if self.loop.layers.device.type == "mps":
            return None
        running = self.loop.running
        self._first_steps = {stream: self._first_steps.get(stream, stream.step) for stream in running}
        self._measured &= set(running)
        warm = all(stream.step >= first + WARM_STEPS for stream, first in self._first_steps.items())
        if not warm or len(self._measured) == len(running):
            return None
        meter = Meter(self.loop.layers.device)
        found = taken(self.loop, meter.bytes) if self.loop.tick(meter) else {}
        self._measured = set(found)
        return found


class Meter:
    """The most memory that is allocated at once between its entry and its exit, beyond what was allocated before."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            self._before = torch.cuda.memory_allocated(self.device)
            GPU_PEAK.begin_part()
        else:
            self._recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._recorded.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
            return
        self._recorded.__exit__(kind, error, at)  # type: ignore[no-untyped-call]
        events: Any = self._recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        self.bytes = max(accumulate((change for _, change in changes), initial=0))


def taken(loop: Loop, metered: int) -> dict[Stream, Taken]:
    """Of each stream that trains, after a tick whose passes were metered."""
    per_token = metered / loop.fullest_tokens
    return {
        stream: Taken(kept_bytes(loop, stream), round(per_token * _tokens(loop, stream))) for stream in loop.running
    }


def _tokens(loop: Loop, stream: Stream) -> int:
    """Of its largest micro-batch, as far as they are in one pass."""
    return min(stream.batches.most_tokens, max(loop.pass_tokens, stream.batches.longest))


def kept_bytes(loop: Loop, stream: Stream) -> int:
    slot = sum(layer.slot_bytes for layer in loop.layers.stacked.values())
    optimizers = [stream.optimizer, *(clone.optimizer for clone in stream.clones.values())]
    states = [value for one in optimizers for state in one.state.values() for value in state.values()]
    return len(loop.slots_of(stream)) * slot + sum(value.nbytes for value in states if isinstance(value, Tensor))
