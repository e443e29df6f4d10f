"""Passes and optimizer steps of different streams at once on a CPU: small tensors keep one core busy, not all of them.

torch releases Python's lock in its operations, and passes without a slot in common write to no tensor in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from transformers import PreTrainedModel

Given = TypeVar("Given")
Found = TypeVar("Found")


class Threads:
    """Compute what is independent, some of it at once; each thread has its share of the cores that this process computes with."""

    def __init__(self) -> None:
        self._count = 1
        self._pool: ThreadPoolExecutor | None = None

    def first(self, compute: Callable[[Given], Found | None], given: Iterable[Given], threads: int) -> Found | None:
        """What the first gives that gives something; none is being computed any more when it returns or raises.

        With one thread those behind it are not begun.
        """
        return next(filter(None, map(compute, given) if threads == 1 else self.each(compute, given, threads)), None)

    def each(self, compute: Callable[[Given], Found], given: Iterable[Given], threads: int) -> list[Found]:
        """What each gives, in their order; none is being computed any more when it returns or raises."""
        if threads == 1:
            return [compute(one) for one in given]
        if self._pool is None or self._count != threads:
            self._count, self._pool = threads, pool_of(threads)
        begun = [self._pool.submit(compute, one) for one in given]
        wait(begun)
        return [one.result() for one in begun]


def pool_of(threads: int) -> ThreadPoolExecutor:
    """Threads of their own end with it, when nobody holds it any more."""
    cores = max(1, torch.get_num_threads() // threads)  # torch's number is each thread's own
    return ThreadPoolExecutor(threads, "passes", initializer=torch.set_num_threads, initargs=(cores,))


@contextmanager
def computed(compute: Callable[[Given], Found], given: Iterable[Given], threads: int) -> Iterator[Iterator[Found]]:
    """What each gives, in their order and ahead of who takes it; within, it may be left at any time.  With one thread each waits until it is taken."""
    if threads == 1:
        yield map(compute, given)
        return
    pool = pool_of(threads)
    try:
        yield pool.map(compute, given)
    finally:
        pool.shutdown(cancel_futures=True)


CHANGING = ("dynamic", "longrope")
"""Rotary embeddings that each pass may set anew by the length of its rows (`transformers.modeling_rope_utils`)."""


def may_compute_at_once(model: PreTrainedModel) -> bool:
    """Whether several threads may go through the model: on a GPU one core starts all kernels, and code of others may keep what it likes."""
    ropes = [str(getattr(module, "rope_type", "")) for module in model.modules()]
    changing = any(name in rope for rope in ropes for name in CHANGING)
    return model.device.type == "cpu" and type(model).__module__.startswith("transformers.") and not changing
