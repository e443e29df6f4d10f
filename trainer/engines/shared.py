"""The engine `shared`: trainings of one base in one process, by one loop; each joins, pauses and leaves at its own step boundaries.

One thread computes, another one writes checkpoints and reports what has ended, so that no training waits for another one's disk.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from swarm import kinds
from swarm.errors import UserError
from swarm.events import Post
from swarm.policy.batching import Engine, engines_of, shapes_batches
from swarm.settings import StreamSettings
from trainer import bases, training, warm
from trainer.data.prepared import TRAIN, Rows, rows_to_choose_by
from trainer.data.tokens import Tokens
from trainer.engines.arrangement import Arrangement
from trainer.errors import Elsewhere
from trainer.inspection import facts_of_model
from trainer.loading import load_base
from trainer.loop import folder
from trainer.loop.adapter import as_in_peft
from trainer.loop.batches import Batches
from trainer.loop.boundary import Boundary
from trainer.loop.fusable import unfusable
from trainer.loop.loop import Loop, is_out_of_memory
from trainer.loop.memory import WarmProbe
from trainer.loop.parts import Stepped
from trainer.loop.probe import refuse_contamination
from trainer.loop.recipe import Recipe
from trainer.loop.stream import Failed, Stream
from trainer.place import Place
from trainer.progress import Next, Snapshot, TrainingProgress
from trainer.work import Mates, Work

ENGINE: Engine = "shared"
FILES = (folder.OPTIMIZER, folder.PARTS)
"""What the loop needs in a checkpoint beside the adapter to go on."""


def train(mates: Mates, place: Place) -> None:
    """All that arrive, until none is left.  Raises what is no single training's fault while there are several."""
    Group(mates, place).run()


@dataclass(eq=False)
class Member:
    """One training of the group."""

    work: Work
    progress: TrainingProgress
    stream: Stream
    held_out: Sequence[Tokens]
    saving: Future[None] | None = None
    error: Exception | None = None
    """Why it ends, where it fails."""
    is_paused: bool = False


class Group(Boundary):
    def __init__(self, mates: Mates, place: Place) -> None:
        self.mates, self.place = mates, place
        self._loop: Loop | None = None
        self._reasons: dict[bool, str | None] = {}
        """Why streams cannot be trained here, by whether they adapt linear layers; None: they can."""
        self._members: dict[Stream, Member] = {}
        """Until all is reported of them."""
        self._endings: set[Future[None]] = set()
        self._outside: list[Work] = []
        """Those that memory did not hold beside the others, and how many others that were."""
        self._held = 0

    def run(self) -> None:
        with ThreadPoolExecutor(1, "saves") as self._writer:
            try:
                while (arrived := [*self._readmitted(), *self.mates.arrived()]) or self._members:
                    for work in arrived:
                        self._join(work)
                    self._resume()
                    self._turn()
            finally:
                for member in list(self._members.values()):
                    member.progress.log.close()

    def _turn(self) -> None:
        if self._loop and self._loop.running:
            self._tick(self._loop)
        elif any(member.is_paused for member in list(self._members.values())):
            self.mates.wait()
        else:
            for ending in wait(self._endings).done:
                ending.result()

    def _tick(self, loop: Loop) -> None:
        try:
            if self._is_to_be_measured and (taken := self._probe.tick()) is not None:
                for stream, memory in taken.items():  # heartbeats tell the coordinator, which goes by it
                    self._members[stream].work.lease.memory = memory
            elif decided := self._arrangement.tick():
                self._note(decided)
        except Exception as error:  # one that has no company is to blame; of several it cannot be told which
            if len(loop.running) != 1:
                raise
            member = self._members[loop.running[0]]
            loop.remove(member.stream)
            self._fail(member, error)

    @property
    def _is_to_be_measured(self) -> bool:
        """On a GPU its allocator counts at no cost; on a CPU a profiler does, for streams that wait."""
        return self.place.on_gpu or any(member.work.lease.is_to_be_measured for member in list(self._members.values()))

    def _note(self, text: str) -> None:
        """Of the group, under the lease of its first member."""
        for member in list(self._members.values())[:1]:
            member.work.lease.report(Post(ref=member.work.piece.ref, body=text))

    def split(self, pass_tokens: int) -> None:
        self._note(
            f"memory did not hold a forward pass of all rows: passes hold {pass_tokens} tokens at most from here"
        )

    # ---- coming ----

    def _join(self, work: Work) -> None:
        began = time.monotonic()
        progress: TrainingProgress | None = None
        try:
            progress = training.begin(work.piece, work.lease, self.place)
            training.refuse_other(progress, ENGINE)
            member = self._member(work, progress)
            self._members[member.stream] = member
            progress.load_seconds = time.monotonic() - began
            if training.is_finished(progress):
                self._end(member)
            else:
                progress.start()
                self._add(member)
        except Exception as error:  # whatever is wrong with its files, settings or base: the others go on
            if progress:
                progress.close()
            if self._members and is_out_of_memory(error):
                self._leave_outside(work)
            else:
                self.mates.ended(work, error)

    def _add(self, member: Member) -> None:
        """Into the loop, or out of it again with the error."""
        settings = member.work.piece.settings
        loop = self._ready(settings)
        try:
            loop.add(member.stream)
            if settings.packing != "none":
                slot = loop.slots_of(member.stream)[0]
                refuse_contamination(loop.head, slot, member.stream.batches.rows[:2])
            member.progress.measured_at_start(member.stream.steps, lambda: self._held_out(member))
        except Exception:
            del self._members[member.stream]
            loop.remove(member.stream)
            raise

    def _leave_outside(self, work: Work) -> None:
        """What does not fit waits: nobody is to blame."""
        self._outside.append(work)
        self._held = len(self._members)
        text = f"memory does not hold it beside {self._held} others: it waits until one has left"
        work.lease.report(Post(ref=work.piece.ref, body=text))

    def _readmitted(self) -> list[Work]:
        """Those outside, once there is more room; and those that are not to wait any longer."""
        more_room = len(self._members) < self._held
        coming = [work for work in self._outside if more_room or work.lease.order in {"stop", "revoke"}]
        self._outside = [work for work in self._outside if work not in coming]
        return coming

    def _member(self, work: Work, progress: TrainingProgress) -> Member:
        settings = work.piece.settings
        loop = self._ready(settings)
        prepared = self.place.run_folder / (work.piece.prepared or "")
        batches = Batches.of(settings, Rows(prepared / TRAIN))
        held_out = rows_to_choose_by(prepared)
        stream = Recipe.of(settings, self._facts, batches, held_out).stream(loop, work.piece.stream)
        training.refuse_unreachable_stops(settings, stream.steps)
        stream.adapter.config.base_model_name_or_path = bases.name_in_adapters(settings.base_model)
        progress.trainable = sum(value.numel() for value in stream.adapter.parameters())
        if progress.resumed:
            folder.read(stream, progress.resumed.folder)
        if progress.assign.warm and any(pair.fixed for pair in stream.adapter.pairs.values()):
            key = "start_adapter" if stream.adapter.is_on_start else "init_lora_weights"
            what = "an adapter with rows that are not trained cannot begin with another stream's weights"
            raise UserError(key, what, "add the stream without them (`swarm add`), or leave this setting out")
        warm.begin(progress, stream.adapter.named_parameters(), stream.optimizer, stream.adapter.config, as_in_peft)
        return Member(work, progress, stream, held_out)

    def _ready(self, settings: StreamSettings) -> Loop:
        """The group's loop; the first member brings the base.  Raises UserError or Elsewhere where the loop cannot train on it."""
        if self._loop is None:
            training.forget_peak(self.place)
            model = load_base(bases.folder_of(settings.base_model), settings, self.place)
            self._refuse_unfusable(model, settings)
            self._facts = facts_of_model(model)
            self._loop = Loop(model, self, exact=settings.exact, dequantise=settings.dequantise)
            self._arrangement = Arrangement(self._loop, is_open=not settings.exact)
            self._probe = WarmProbe(self._loop)
        else:
            self._refuse_unfusable(self._loop.model, settings)
        return self._loop

    def _refuse_unfusable(self, model: PreTrainedModel, settings: StreamSettings) -> None:
        """Asked once for streams on linear layers and once for control adapters alone: of experts only these can share a pass."""
        linears = kinds.adapter(settings.adapter).adapts_linears(settings)
        if linears not in self._reasons:
            self._reasons[linears] = unfusable(model, linears=linears)
        if (why := self._reasons[linears]) is None:
            return
        if settings.engine == "auto" and "trl" in engines_of(settings):
            raise Elsewhere(why)
        raise UserError("engine", f"shared cannot train on {settings.base_model}: {why}", _way_out(settings))

    # ---- at the loop's boundaries ----

    def stepped(self, stream: Stream, step: Stepped) -> str | None:
        member = self._members[stream]
        try:
            return self._after(member, step)
        except Exception as error:  # its own evaluation, figures or disk: the others go on
            member.error = member.error or error
            return str(error)

    def _after(self, member: Member, step: Stepped) -> str | None:
        stream, progress = member.stream, member.progress
        if member.error:  # a checkpoint could not be written
            raise member.error
        progress.lease.step = step.step
        losses = {name: step.figures[name] for name in stream.loss.figures if name in step.figures}
        due = progress.measured(step.step, stream.steps, losses, stream.tokens, lambda: self._held_out(member))
        due = progress.ordered(due)
        for event in step.events:
            member.work.lease.report(Post(ref=member.work.piece.ref, body=f"step {step.step}: {event}"))
        if due.log:
            progress.log_step(step.step, stream.steps, {**step.figures, **progress.means})
        member.is_paused = not due.ends and progress.lease.paused
        return self._follow(member, due) or ("paused" if member.is_paused else None)

    def _follow(self, member: Member, due: Next) -> str | None:
        """Saves where that is due; returns why it ends, if it does."""
        if due.ends:
            member.progress.end()
            training.refuse_unmoved(member.progress, moved=member.stream.audits > 0)
        if due.save:
            self._save(member, due)
        return member.progress.why if due.ends else None

    def _held_out(self, member: Member) -> dict[str, float]:
        assert self._loop
        found = self._loop.held_out(member.stream, member.held_out)
        member.stream.judged(found["eval_loss"])
        return found

    def ended(self, stream: Stream, why: str) -> None:
        member = self._members[stream]
        if member.is_paused:
            member.progress.lease.suspend()
        else:
            self._end(member)

    def failed(self, stream: Stream, why: Failed) -> None:
        member = self._members[stream]
        member.progress.lose_step(stream.step + 1, stream.steps)
        self._fail(member, UserError(stream.name, str(why), why.fix))

    def _resume(self) -> None:
        """Those whose pause is over: as if nothing had been, or to their end where they are stopped."""
        for member in list(self._members.values()):
            if member.is_paused and not member.work.lease.paused:
                member.is_paused = False
                member.work.lease.go_on()
                self._go_on(member)

    def _go_on(self, member: Member) -> None:
        try:
            over = self._follow(member, member.progress.ordered(Next()))
        except Exception as error:  # its checkpoint: the others go on
            self._fail(member, error)
            return
        if over:
            self._end(member)
        else:
            assert self._loop
            self._loop.add(member.stream)

    # ---- checkpoints and ends, which are written by the other thread ----

    def _save(self, member: Member, due: Next) -> None:
        stream = member.stream
        state = stream.state_dict()
        if not all(bool(value.isfinite().all()) for value in state["adapter"].values()):
            raise UserError(stream.name, f"adapter was not finite at step {stream.step}", "lower learning_rate")
        of = member.progress.snapshot(stream.step, stream.steps, ends=due.ends)
        if member.saving:
            member.saving.result()  # of one training no more than two states are in memory
        member.saving = self._writer.submit(self._write, member, state, of)

    def _write(self, member: Member, state: dict[str, Any], of: Snapshot) -> None:
        progress = member.progress
        staged = progress.staging / f"checkpoint-{of.step}"
        try:
            progress.refuse_full_disk()
            staged.mkdir()
            folder.write_state(state, member.stream, staged)
            progress.keep(staged, of, ENGINE, FILES)
        except Exception as error:  # it ends the training at its next boundary
            member.error = member.error or error

    def _fail(self, member: Member, error: Exception) -> None:
        member.error = member.error or error
        self._end(member)

    def _end(self, member: Member) -> None:
        self._endings.add(self._writer.submit(self._report, member))

    def _report(self, member: Member) -> None:
        error = member.error
        try:
            if error is None:
                training.finish(member.progress)
        except Exception as caught:  # a lease that is over, or what cannot be written
            error = caught
        member.progress.close()
        self.mates.ended(member.work, error)
        del self._members[member.stream]


def _way_out(settings: StreamSettings) -> str:
    """What to do where a base cannot be shared."""
    if "trl" in engines_of(settings):
        return "write `engine: trl`"
    if shapes_batches(settings):
        return "leave out `packing` and its like"
    if "trl" in kinds.method(settings.method).engines:
        return "leave out what the shared engine alone has (fp16, init_lora_weights and others), or take another base"
    return f"trl has no such {settings.method}: take another base"
