"""One training loop for one or more streams on one frozen base: one forward and one backward pass for all, a step for each.

A tick computes the next micro-batch of every stream and steps those whose accumulation is complete.  No sum, norm or random number
is shared, so each stream goes as if it were alone.  Fused passes may differ from a stream's own in the last bits, since matrix
products of other sizes add up in another order; with `exact` each stream has passes of its own, and is bit-equal whoever comes or goes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from math import prod

import torch
from peft import LoraConfig
from torch import Tensor
from transformers import PreTrainedModel

from swarm.policy.fitting import PASS_TOKENS, full_pass_tokens, judged_tokens
from trainer.determinism import one_order
from trainer.device import free_memory
from trainer.loop.adapter import Adapter, Fixed, Layers
from trainer.loop.audit import audit, refuse_rate
from trainer.loop.batches import Tokenised
from trainer.loop.boundary import Boundary
from trainer.loop.dequantised import Dequantise
from trainer.loop.head import Head
from trainer.loop.layer import shape_of
from trainer.loop.losses import JUDGED
from trainer.loop.parts import Loss, Stepped
from trainer.loop.plan import Pass, Plan, Row, buckets, pass_cost, shared_out, supervised, tokens_of
from trainer.loop.recompute import recomputed
from trainer.loop.stream import Failed, Stream
from trainer.loop.threads import Threads, may_compute_at_once

AUDIT_STEPS = (1, 20)
"""Each stream is audited at the first step from these on whose learning rate is above zero."""
FAULTS = 3
"""Named of one stream at most: what is wrong with one layer is often wrong with all."""
LESS = "lower sequence_len, or set gradient_checkpointing: true"


class Loop:
    """Trains the streams that it holds.  The model is frozen and in eval mode: dropout is the adapters' alone."""

    def __init__(
        self,
        model: PreTrainedModel,
        boundary: Boundary | None = None,
        *,
        exact: bool = False,
        pass_tokens: int | None = None,
        dequantise: Dequantise = "step",
    ) -> None:
        self.model = model.requires_grad_(False)
        self.model.eval()  # type: ignore[no-untyped-call]
        self.boundary = boundary or Boundary()
        self.exact = exact
        """Each stream goes in passes of its own."""
        self.threads = 1
        """Passes of different streams that are computed at once, each on its share of the cores; `most_threads` at most."""
        self._threads = Threads()
        self.is_bit_equal = exact
        """It is promised that these give the same bits, whoever is beside it."""
        on_gpu = model.device.type != "cpu"
        self.pass_tokens = pass_tokens or full_pass_tokens(on_gpu=on_gpu)
        self.fullest_tokens = 0
        """Of the fullest pass of the newest tick, pads included."""
        self.plan = Plan()
        self.layers = Layers(model, self.plan, dequantise)
        self.head = Head(model, self.plan)
        sizes = [prod(shape_of(layer)) for layer in self.layers.linear.values()]
        self.pass_cost = pass_cost(sizes, on_gpu=on_gpu)
        self._may_compute_at_once = may_compute_at_once(model)
        self.streams: list[Stream] = []
        """In the order of their slots.  An evicted one keeps its place, and adds nothing, until another comes or leaves."""
        self.slots: list[tuple[Stream, Adapter]] = []
        """Each stream's own adapter, and those of its clones behind it."""

    def adapter(
        self,
        config: LoraConfig,
        seed: int = 0,
        filed: LoraConfig | None = None,
        below: Mapping[str, Fixed] | None = None,
    ) -> Adapter:
        """A new one for a stream of this loop."""
        return self.layers.adapter(config, seed, filed, below)

    @property
    def running(self) -> list[Stream]:
        return [stream for stream in self.streams if not stream.failure]

    @property
    def most_threads(self) -> int:
        """Passes that may be computed at once: those of one stream add to the same gradients, and recomputing switches layers for all."""
        if not self._may_compute_at_once or any(stream.recompute for stream in self.running):
            return 1
        return max(1, min(torch.get_num_threads(), len(self.running)))

    def add(self, *streams: Stream) -> None:
        """From the next tick on.  The others keep what they have gathered."""
        for stream in streams:
            if stream.step == 0:
                stream.begin()
        self._regroup([*self.running, *streams])

    def remove(self, *leaving: Stream) -> None:
        self._regroup([stream for stream in self.running if stream not in leaving])
        for stream in leaving:
            stream.detach()

    def _regroup(self, streams: Sequence[Stream]) -> None:
        self.streams = sorted(streams, key=lambda stream: stream.adapter.is_dora)  # the layers want DoRA last
        self.slots = [(stream, adapter) for stream in self.streams for adapter in stream.adapters]
        self.layers.stack([adapter for _, adapter in self.slots])
        for stream in streams:
            stream.look = self._look

    def slots_of(self, stream: Stream) -> list[int]:
        """Its adapter's first."""
        return [slot for slot, (owner, _) in enumerate(self.slots) if owner is stream]

    @property
    def losses(self) -> list[Loss]:
        """By slot."""
        return [stream.loss for stream, _ in self.slots]

    def run(self) -> None:
        """Until no stream is left."""
        while self.running:
            self.tick()

    def tick(self, meter: AbstractContextManager[object] | None = None) -> int:
        """One micro-batch of every stream; returns its tokens, pads left out: none where memory did not hold them.

        The passes are computed within `meter`.
        """
        rows = self._drawn()
        threads = 1 if meter else min(self.threads, self.most_threads)  # what is metered is one pass after another
        most = min(self.pass_tokens, PASS_TOKENS // threads)
        groups = shared_out(rows, self.pass_cost, most, exact=self.exact, count=threads)
        self.fullest_tokens = max(map(tokens_of, chain.from_iterable(groups)), default=0)
        sums = self.head.sums(self.losses)
        padded = [0] * len(self.slots)
        with meter or nullcontext(), one_order(self.layers.device, wanted=self.is_bit_equal):
            unfit = self._threads.first(lambda group: self._unfit(group, sums, padded), groups, threads)
        if unfit:
            self._split(unfit)
            return 0
        self._finish(sums.tolist(), padded, threads)
        return sum(len(row.ids) for row in rows)

    def held_out(self, stream: Stream, rows: Sequence[Tokenised]) -> dict[str, float]:
        """Figures of rows that it is not trained on, by its weights as they are, without dropout."""
        stream.settle()
        return self._judged(rows, stream.adapter)

    def _look(self, rows: Sequence[Tokenised], adapter: Adapter) -> float:
        """The held-out loss by an adapter that is in the stacks."""
        return self._judged(rows, adapter)["eval_loss"]

    def _judged(self, rows: Sequence[Tokenised], adapter: Adapter) -> dict[str, float]:
        """Figures of rows by an adapter that is in the stacks."""
        slot = next(slot for slot, (_, mine) in enumerate(self.slots) if mine is adapter)
        if adapter.is_dora:
            self.layers.renorm(slot)
        judged = [Row(slot, row.ids, row.labels, classes=row.classes) for row in rows]
        losses = [JUDGED] * len(self.slots)
        sums = self.head.sums(losses)
        for part in buckets(
            judged, self.pass_cost, min(self.pass_tokens, judged_tokens(on_gpu=self.layers.device.type != "cpu"))
        ):
            current = Pass.of(part, self.layers.device)
            with self.plan.running(current):
                self.head.evaluate(current, losses, sums)
        nats, hits = (sums[slot] / sum(supervised(row.labels) for row in judged)).tolist()
        return {"eval_loss": nats, "eval_token_accuracy": hits}

    def _finish(self, nats: list[list[float]], padded: list[int], threads: int) -> None:
        """Steps the streams whose accumulation is complete and lets go of those that are done."""
        own = {stream: self.slots_of(stream) for stream in self.streams}  # before any of them changes its clones
        complete = [
            stream
            for stream, slots in own.items()
            if stream.window
            and stream.computed(
                [sum(of) for of in zip(*(nats[slot] for slot in slots), strict=True)],
                sum(padded[slot] for slot in slots),
            )
        ]
        moved = self._threads.each(_moved, complete, threads)
        steps = {
            stream: step
            for stream, one in zip(complete, moved, strict=True)
            if one is not None and (step := self._steered(stream, one))
        }
        self._audit(steps)
        leaving = {stream: why for stream, step in steps.items() if (why := self._why_it_leaves(stream, step))}
        if leaving:
            self.remove(*leaving)
            free_memory()  # what passes took for them: they are judged while the others train on
        for stream, why in leaving.items():
            if not stream.failure:
                self.boundary.ended(stream, why)

    def _drawn(self) -> list[Row]:
        """Rows of every stream's next micro-batch.  One whose data fails gives the rows of its last step again, to keep its place."""
        rows: list[Row] = []
        for stream in self.streams:
            try:
                rows += stream.next_rows(self.slots_of(stream)[0])
            except Failed as error:
                self._evict(stream, error, keeps_place=stream.before is not None)
                return self._drawn()  # windows that are open stay as they are
        return rows

    def _unfit(self, passes: Sequence[Sequence[Row]], sums: Tensor, padded: list[int]) -> Sequence[Row] | None:
        """Computes the passes, up to the first that memory did not hold."""
        return next((rows for rows in passes if not self._fitted(rows, sums, padded)), None)

    def _fitted(self, rows: Sequence[Row], sums: Tensor, padded: list[int]) -> bool:
        """Computes one pass; False where memory did not hold it, and by then all that it took is free again."""
        try:
            self._compute(rows, sums, padded)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return True
        free_memory()  # once the error is gone, whose traceback holds the pass's tensors
        return False

    def _compute(self, rows: Sequence[Row], sums: Tensor, padded: list[int]) -> None:
        """Forward and backward of one pass."""
        current = Pass.of(rows, self.layers.device)
        recompute = any(self.slots[slot][0].recompute for slot in current.used)
        with self.plan.running(current), recomputed(self.model, wanted=recompute):
            self.head.backward(self.head.hidden(current.ids), current, self.losses, sums)
        for row in current.rows:
            padded[row.slot] += current.ids.shape[1]

    def _split(self, rows: Sequence[Row]) -> None:
        """Memory did not hold this pass: smaller ones are tried, and only a row that fails alone is blamed.

        What the pass has left in gradients is unknown, so every open window is computed again from its start.
        """
        if len(rows) == 1:
            stream = self.slots[rows[0].slot][0]
            self._evict(
                stream, Failed(f"memory does not hold one row of {len(rows[0].ids)} tokens", LESS), keeps_place=False
            )
        else:
            self.pass_tokens = max(1, tokens_of(rows) // 2)
            self.boundary.split(self.pass_tokens)
        for stream in self.running:
            stream.rewind()

    def _steered(self, stream: Stream, moved: Stepped | Failed) -> Stepped | None:
        """Its optimizer step with what its controllers made of it; None where the stream has failed."""
        try:
            if isinstance(moved, Failed):
                raise moved
            if stream.failure:
                return moved
            done = stream.steered(moved)
            self._follow(stream)
        except Failed as error:
            self._evict(stream, error)
            return None
        return done

    def _why_it_leaves(self, stream: Stream, step: Stepped) -> str | None:
        """After its optimizer step, or None."""
        return (not stream.failure and self.boundary.stepped(stream, step)) or stream.why_done(step)

    def _follow(self, stream: Stream) -> None:
        """The stacks hold the adapters that the stream has after its step."""
        slots = self.slots_of(stream)
        if [self.slots[slot][1] for slot in slots] != stream.adapters:
            self._regroup(self.running)
        elif stream.adapter.is_dora:
            for slot in slots:
                self.layers.renorm(slot)

    def _audit(self, steps: Mapping[Stream, Stepped]) -> None:
        """Evicts those with whom something is wrong."""
        due = [stream for stream, step in steps.items() if not stream.failure and audit_is_due(stream, step)]
        for stream in due:
            stream.settle()
        found = audit(due, [owner for owner, _ in self.slots], self.layers, self.head) if due else {}
        for stream, faults in found.items():
            try:
                refuse_rate(stream)
                if faults:
                    raise Failed("; ".join(faults[:FAULTS]), "set engine: trl")
            except Failed as error:
                self._evict(stream, error)

    def _evict(self, stream: Stream, error: Failed, *, keeps_place: bool = True) -> None:
        """Takes a failed stream's weights out.  In its place it goes on computing the bare base, so that no shape of the others changes."""
        stream.failure = str(error)
        if keeps_place:
            self.layers.stack([self.layers.blank(adapter) if each.failure else adapter for each, adapter in self.slots])
        else:
            self._regroup(self.running)
        stream.detach()
        self.boundary.failed(stream, error)


def _moved(stream: Stream) -> Stepped | Failed | None:
    """Its optimizer step, or what was wrong; None where its window is to be computed again.  Touches nothing that is not its own."""
    if stream.overflowed():
        return None
    try:
        return stream.moved()
    except Failed as error:
        return error


def audit_is_due(stream: Stream, done: Stepped) -> bool:
    """Whether it is to be audited after this step; counts that it was."""
    due = (
        stream.audits < len(AUDIT_STEPS)
        and done.step >= AUDIT_STEPS[stream.audits]
        and done.figures["learning_rate"] > 0
    )
    stream.audits += due
    return due


OUT_OF_MEMORY = (
    "can't allocate memory",
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""How errors without a class of their own begin or go on."""


def is_out_of_memory(error: Exception) -> bool:
    is_named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_named or any(words in str(error) for words in OUT_OF_MEMORY)
