"""The engine `pair`: a stream of two models, each a model of its own with PEFT's adapter on it, stepped one after the other.

Both have the arithmetic of a step that the shared engine has (`loop.stream`): one step counter, one checkpoint, and a learning rate that
is schedule x controllers x arbiter.  A model that rests in a step, as the arbiter wants it, passes over that step's rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from swarm import kinds
from swarm.errors import UserError
from swarm.events import Post
from swarm.messages import Piece
from swarm.policy.batching import Engine
from swarm.settings import StreamSettings
from trainer import bases, models, training
from trainer.arbiter import Arbiter
from trainer.data.prepared import TRAIN, Rows, rows_to_choose_by
from trainer.data.tokens import Tokens
from trainer.device import widest
from trainer.engines.callbacks import each_in_one_group
from trainer.judge.heldout import held_out_figures
from trainer.judge.objective import Objective
from trainer.loading import load_base, new_adapter
from trainer.loop import folder
from trainer.loop.audit import refuse_huge, refuse_not_finite, unmoved
from trainer.loop.batches import Batches
from trainer.loop.layer import mixed
from trainer.loop.loop import audit_is_due
from trainer.loop.parts import Stepped
from trainer.loop.recipe import controllers_of
from trainer.loop.schedules import NamedSchedule
from trainer.loop.stream import Failed, Stream, Window
from trainer.loop.tuned import Tuned
from trainer.objectives.tied import Tied
from trainer.place import Place
from trainer.progress import Next, TrainingProgress
from trainer.tie import Half, Tie

ENGINE: Engine = "pair"
ARBITER = "arbiter.pt"
FILES = (*(f"{name}/{file}" for name in ("encoder", "decoder") for file in (folder.OPTIMIZER, folder.PARTS)), ARBITER)
"""What it needs in a checkpoint beside the adapters to go on."""
ROW_SEED = 0x6D61
"""Keeps the numbers that rows are masked by apart from those of dropout."""


def train(progress: TrainingProgress) -> None:
    """The whole training, up to its last checkpoint."""
    began = time.monotonic()
    training.forget_peak(progress.place)
    pair = Pair(progress)
    progress.load_seconds = time.monotonic() - began
    progress.lease.check()
    progress.start()
    due = Next()
    while not due.ends:
        try:
            due = _after(progress, pair, pair.stepped())
        except Failed as error:
            progress.lose_step(pair.step + 1, pair.steps)
            raise UserError(progress.assign.stream, str(error), error.fix) from error


def _after(progress: TrainingProgress, pair: Pair, step: Stepped) -> Next:
    """What follows a step; a pause waits here."""
    losses = {name: value for name, value in step.figures.items() if name.endswith("loss")}
    tokens = int(step.figures["tokens"])
    due = progress.measured(step.step, pair.steps, losses, tokens, pair.held_out)
    progress.lease.boundary(step.step)
    due = progress.ordered(due)
    for event in step.events:
        progress.lease.report(Post(ref=progress.assign.ref, body=f"step {step.step}: {event}"))
    if due.log:
        progress.log_step(step.step, pair.steps, {**step.figures, **progress.means})
    if due.ends:
        progress.end()
        training.refuse_unmoved(progress, moved=all(side.stream.audits > 0 for side in pair.sides.values()))
    if due.save:
        _save(progress, pair, ends=due.ends)
    return due


def _save(progress: TrainingProgress, pair: Pair, *, ends: bool) -> None:
    of = progress.snapshot(pair.step, pair.steps, ends=ends)
    staged = progress.staging / f"checkpoint-{of.step}"
    progress.refuse_full_disk()
    staged.mkdir()
    pair.write(staged)
    progress.keep(staged, of, ENGINE, FILES)


class Side:
    """One of the models."""

    def __init__(self, piece: Piece, place: Place) -> None:
        self.settings, self._place = piece.settings, place
        prepared = place.run_folder / (piece.prepared or "")
        self.batches = Batches.of(self.settings, Rows(prepared / TRAIN))
        self.objective: Objective = kinds.method(self.settings.method).objective(self.settings)
        base = load_base(bases.folder_of(self.settings.base_model), self.settings, place)
        torch.manual_seed(self.settings.seed)  # A's random start is the stream's own
        self.model = new_adapter(base, self.settings)
        self.model.peft_config["default"].base_model_name_or_path = bases.name_in_adapters(self.settings.base_model)
        self._held_out: Sequence[Tokens] = rows_to_choose_by(prepared)
        self.adapter = Tuned(self.model)
        self.stream: Stream

    def tie(self, tie: Tie) -> None:
        """Its rows are learned behind what the other model says of their prompts, and the projector is trained with its adapter."""
        self.objective = Tied(tie)
        self.adapter.beside["projector"] = tie.projector

    def begin(self, name: str, steps: int) -> None:
        """`steps` are those of both."""
        settings, adapter = self.settings, self.adapter
        kind, arguments = kinds.optimizer(settings.optimizer).made_of(settings)
        made: Any = kind  # torch's base class knows no `lr`
        groups = [{"params": adapter.parameters(), "weight_decay": settings.weight_decay}]
        self.stream = Stream(
            name=name, adapter=adapter, optimizer=made(groups, lr=settings.learning_rate, **arguments), batches=self.batches,
            steps=steps, schedule=NamedSchedule.of(settings, steps), max_grad_norm=settings.max_grad_norm or None,
            seed=settings.seed, controllers=controllers_of(settings),
        )  # fmt: skip
        self._sums_at_first = self._sums()
        each_in_one_group(nn.ModuleList([self.model, adapter.beside]), self.stream.optimizer)

    def gather(self) -> None:
        """The gradients of a step's rows; those of a model that it is tied to too.  Raises Failed."""
        stream = self.stream
        micro_batches = cast("list[list[Tokens]]", stream.batches.of_step(stream.step))
        keys = self._keys(micro_batches)
        counted = sum(map(self.objective.counted, micro_batches, keys))
        if not counted:
            raise Failed(
                f"the rows of step {stream.step + 1} hold nothing to learn", "look at the rows with `swarm show`"
            )
        nats, number = 0.0, 0
        self.adapter.to_train()
        for rows, own in zip(micro_batches, keys, strict=True):
            torch.manual_seed(mixed(stream.seed, stream.step, number))  # of dropout
            total = self.objective.loss(self.model, rows, own, weighted=stream.loss.weighted)
            torch.autograd.backward(total / counted)
            nats, number = nats + float(total.detach()), number + len(rows)
        padded = sum(len(rows) * max(len(row.ids) for row in rows) for rows in micro_batches)
        stream.window = Window(cast("Any", micro_batches), counted, len(micro_batches), [nats], padded)

    def _keys(self, micro_batches: Sequence[Sequence[Tokens]]) -> list[list[int]]:
        """A number for each row, by its place in the step."""
        places = count()
        return [
            [mixed(ROW_SEED, self.stream.seed, self.stream.step, next(places)) for _ in rows] for rows in micro_batches
        ]

    def stepped(self) -> Stepped:
        """The optimizer step with what was gathered.  Raises Failed."""
        done = self.stream.stepped()
        if audit_is_due(self.stream, done):
            self._refuse_rate()
        return done

    def _refuse_rate(self) -> None:
        """Of all that is trained: in a step from a new head of zeros, the head alone moves."""
        refuse_huge(self.stream)
        if torch.equal(self._sums(), self._sums_at_first):
            raise unmoved(self.stream)

    def _sums(self) -> torch.Tensor:
        """A number for each tensor, which a step changes."""
        return torch.stack(
            [value.detach().to(widest(value.device)).square().sum() for value in self.adapter.parameters()]
        )  # (P,)

    def rest(self) -> None:
        """A step in which it is not updated, whatever it is tied to."""
        self.stream.zero_gradients()
        self.stream.step += 1

    def held_out(self) -> dict[str, float]:
        model = cast("PreTrainedModel", self.model)  # a PeftModel passes calls on to it
        found = held_out_figures(self.objective.losses(model, self._held_out, lambda: None))
        self.stream.judged(found["eval_loss"])
        return found


class Pair:
    """Both, and what is known of them together."""

    def __init__(self, progress: TrainingProgress) -> None:
        settings: Any = progress.assign.settings
        if progress.assign.warm:
            raise UserError("duo", "a stream of two models cannot begin with another one's weights", "add it anew")
        pieces = models.pieces(progress.assign, progress.place)
        self.sides = {name: Side(piece, progress.place) for name, piece in pieces.items()}
        self.steps = steps_of(settings, [side.batches for side in self.sides.values()])
        training.refuse_unreachable_stops(settings, self.steps)
        self.tie = self._tied(settings) if settings.tie_tokens else None
        for name, side in self.sides.items():
            side.begin(name, self.steps)
        self.arbiter = Arbiter(
            settings.arbitration, list(self.sides), settings.arbiter_min, settings.arbiter_max, settings.arbiter_beta,
            settings.arbiter_temperature, {name: len(side.batches.rows) for name, side in self.sides.items()},
        )  # fmt: skip
        self.losses: dict[str, float] = {}
        """Of each one's newest step."""
        if progress.resumed:
            self.read(progress.resumed.folder)
        progress.trainable = sum(
            value.numel() for side in self.sides.values() for value in side.stream.adapter.parameters()
        )

    def _tied(self, settings: Any) -> Tie:
        encoder, decoder = (self.sides[name] for name in ("encoder", "decoder"))
        halves = [Half.of_base(side.model, side.settings) for side in (encoder, decoder)]
        tie = Tie(halves[0], halves[1], settings.tie_tokens, trains_encoder=settings.tie_trains_encoder)
        tie.refuse_long(decoder.settings.sequence_len)
        tie.begin(decoder.settings.seed)
        decoder.tie(tie)
        return tie

    @property
    def step(self) -> int:
        return max(side.stream.step for side in self.sides.values())

    def stepped(self) -> Stepped:
        """One step of those whose turn it is.  Raises Failed."""
        turn, done = self.arbiter.whose_turn(self.step), dict[str, Stepped]()
        for name in turn:
            with _named(name):
                self.sides[name].gather()
        for name, side in self.sides.items():
            if name in turn:
                with _named(name):
                    done[name] = side.stepped()
            else:
                side.rest()
        weights = self.arbiter.update(
            {
                name: (step.figures["loss"], norm)
                for name, step in done.items()
                if math.isfinite(norm := step.figures["grad_norm"])  # else nothing was changed
            }
        )
        for name, side in self.sides.items():
            side.stream.factors = [*side.stream.factors[: len(side.stream.controllers)], weights[name]]
        self.losses |= {name: step.figures["loss"] for name, step in done.items()}
        return Stepped(self.step, self._figures(done, weights), [*self._events(done)])

    def _figures(self, done: Mapping[str, Stepped], weights: Mapping[str, float]) -> dict[str, float]:
        streams = {name: side.stream for name, side in self.sides.items()}
        of_each = {
            f"{name}_{figure}": value
            for name, step in done.items()
            for figure, value in step.figures.items()
            if figure not in COMMON
        }
        return {
            "loss": fmean(self.losses.values()),
            **{f"{name}_loss": loss for name, loss in self.losses.items()},
            "learning_rate": max(step.figures["learning_rate"] for step in done.values()),
            "grad_norm": max(step.figures["grad_norm"] for step in done.values()),
            "tokens": sum(stream.tokens for stream in streams.values()),
            "epoch": max(stream.batches.epochs_after(self.step) for stream in streams.values()),
            "supervised": sum(step.figures["supervised"] for step in done.values()),
            "supervised_tokens": sum(stream.supervised_tokens for stream in streams.values()),
            **of_each,
            **{f"{name}_weight": weight for name, weight in weights.items()},
        }

    @staticmethod
    def _events(done: Mapping[str, Stepped]) -> list[str]:
        return [f"{name}: {event}" for name, step in done.items() for event in step.events]

    def held_out(self) -> dict[str, float]:
        return models.joined({name: side.held_out() for name, side in self.sides.items()})

    def write(self, place: Path) -> None:
        """Into a folder that is there."""
        for name, side in self.sides.items():
            refuse_not_finite(side.stream)
            (place / name).mkdir()
            folder.write(side.stream, place / name)
        if self.tie:
            self.tie.write(place)
        torch.save({"arbiter": self.arbiter.state_dict(), "losses": dict(self.losses)}, place / ARBITER)

    def read(self, place: Path) -> None:
        for name, side in self.sides.items():
            folder.read(side.stream, place / name)
        if self.tie:
            self.tie.read(place)
        state = torch.load(place / ARBITER, weights_only=True)
        self.arbiter.load_state_dict(state["arbiter"])
        self.losses = dict(state["losses"])


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Whose step it is that fails."""
    try:
        yield
    except Failed as error:
        raise Failed(f"{name}: {error}", error.fix) from error


COMMON = frozenset({"tokens", "epoch", "supervised", "supervised_tokens", "padded"})
"""Figures that a stream of two models has as one."""


def steps_of(settings: StreamSettings, batches: Sequence[Batches]) -> int:
    """Of the whole training: the model with more steps in an epoch counts the epochs."""
    return settings.max_steps or math.ceil(settings.num_epochs * max(each.steps_per_epoch for each in batches))
