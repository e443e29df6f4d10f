"""One fine-tune as the loop sees it: parts that can be saved, and the arithmetic of one optimizer step.

It knows nothing of the streams beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trainer.duo import Duo
from trainer.loop.adapter import Adapter
from trainer.loop.batches import Batches, Tokenised
from trainer.loop.clones import Clone, cloned, copied
from trainer.loop.decay import Decay
from trainer.loop.head import NLL
from trainer.loop.layer import mixed
from trainer.loop.parts import Controller, Loss, Part, Schedule, Stepped, Stop
from trainer.loop.plan import Row, supervised
from trainer.loop.scaler import Scaler

LOOK = "look at the rows with `swarm show`"


class Failed(Exception):
    """One stream cannot go on; the others can."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.fix = fix


@dataclass
class Window:
    """The micro-batches of one optimizer step, and how far they have come."""

    micro_batches: list[list[Tokenised]]
    supervised: int
    """Tokens that the loss counts, over all micro-batches: what the loss is divided by."""
    done: int = 0
    nats: list[float] = field(default_factory=list)
    """Of the loss and its parts."""
    padded: int = 0
    """Tokens computed, pads included."""

    @property
    def tokens(self) -> int:
        return sum(len(row.ids) for micro_batch in self.micro_batches for row in micro_batch)


@dataclass(kw_only=True, eq=False)
class Stream:
    name: str
    adapter: Adapter
    optimizer: torch.optim.Optimizer
    """Over the adapter's parameters; its groups' learning rates are the highest ones."""
    batches: Batches
    steps: int
    """Optimizer steps after which it is done."""
    schedule: Schedule
    loss: Loss = NLL
    max_grad_norm: float | None = 1.0
    seed: int = 0
    """Of dropout."""
    decay: Decay | None = None
    """Of what the adapter adds, after each optimizer step."""
    controllers: Sequence[Controller] = ()
    stops: Sequence[Stop] = ()
    scaler: Scaler | None = None
    """Of its loss, on a base in float16."""
    recompute: bool = False
    """Gradient checkpointing: compute activations twice instead of keeping them."""
    fresh_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None
    """Makes an optimizer of the same kind, for clones."""
    held_out: Sequence[Tokenised] = ()
    """Rows that it is not trained on, which controllers may look at."""
    clones: dict[str, Clone] = field(default_factory=dict)
    """By task; while there are any, they are trained in place of the adapter, which controllers bring up to date before it is read."""
    look: Callable[[Sequence[Tokenised], Adapter], float] | None = None
    """The loop's: the held-out loss of rows by one of its adapters."""

    step: int = 0
    """Optimizer steps done."""
    tokens: int = 0
    """Tokens trained on, pads left out."""
    supervised_tokens: int = 0
    """Those of them that the loss counted."""
    factors: list[float] = field(default_factory=list)
    """Of the learning rate, by controller."""
    audits: int = 0
    failure: str | None = None
    window: Window | None = None
    before: Window | None = None
    """The newest window that was stepped."""

    def __post_init__(self) -> None:
        self.factors = self.factors or [1.0] * len(self.controllers)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        for controller in self.controllers:
            controller.join(self)

    @property
    def adapters(self) -> list[Adapter]:
        """By slot, from its first one on: its own, and those of its clones."""
        return [self.adapter, *(clone.adapter for clone in self.clones.values())]

    def clone(self, task: str) -> Clone:
        """Another one for this task, as the adapter and its optimizer are."""
        assert self.fresh_optimizer is not None
        self.clones[task] = cloned(self.adapter, self.optimizer, self.fresh_optimizer)
        return self.clones[task]

    def begin(self) -> None:
        for controller in self.controllers:
            controller.begin()

    def detach(self) -> None:
        for adapter in self.adapters:
            adapter.detach()

    def settle(self) -> None:
        """Brings the adapter up to date, before it is saved or judged."""
        for controller in self.controllers:
            controller.settle()

    def judged(self, held_out_loss: float) -> None:
        """It was measured after the newest step."""
        for controller in self.controllers:
            controller.judged(held_out_loss)

    def next_rows(self, slot: int) -> list[Row]:
        """The next micro-batch.  Raises Failed where the data cannot be read or supervises nothing."""
        window = self.window = self.window or self._opened()
        before = sum(len(micro_batch) for micro_batch in window.micro_batches[: window.done])
        weight = 0.0 if self.failure else (self.scaler.factor if self.scaler else 1) / window.supervised
        place = {task: slot + 1 + number for number, task in enumerate(self.clones)}
        return [
            Row(
                place[row.task] if place else slot,
                row.ids,
                row.labels,
                weight,
                mixed(self.seed, self.step, before + number),
                self.loss.everywhere,
                row.classes,
                self.adapter.is_on_start,
            )
            for number, row in enumerate(window.micro_batches[window.done])
        ]

    def _opened(self) -> Window:
        try:
            micro_batches = self.batches.of_step(self.step)
            counted = sum(supervised(row.labels) for rows in micro_batches for row in rows)
        except Exception as error:  # whatever the data set raises is about this stream's rows
            if self.failure and self.before:  # it only keeps its place
                return Window(self.before.micro_batches, self.before.supervised)
            raise Failed(f"the rows of step {self.step + 1} cannot be read: {error}", LOOK) from error
        if not counted:
            raise Failed(f"the rows of step {self.step + 1} hold no supervised token", LOOK)
        return Window(micro_batches, counted)

    def computed(self, nats: Sequence[float], padded: int) -> bool:
        """Takes a micro-batch's loss and its parts; True where it was the last one of its step."""
        assert self.window is not None
        mine = nats[: len(self.loss.figures)]  # others' losses may have more parts
        self.window.nats = [a + b for a, b in zip(self.window.nats or [0.0] * len(mine), mine, strict=True)]
        self.window.padded += padded
        self.window.done += 1
        return self.window.done == len(self.window.micro_batches)

    def rewind(self) -> None:
        """Forgets what the open window has gathered: its micro-batches are computed again."""
        self.window = None
        self.zero_gradients()

    def overflowed(self) -> bool:
        """Whether its scaled gradients did, so that the window is to be computed again; otherwise they are unscaled now."""
        if self.scaler is None or self.failure or not self._loss_is_finite():
            return False
        gradients = [
            value.grad for adapter in self.adapters for value in adapter.parameters() if value.grad is not None
        ]
        if self.scaler.unscaled(gradients):
            return False
        self.rewind()
        return True

    def _loss_is_finite(self) -> bool:
        """Of the open window; it is not scaled."""
        return self.window is not None and all(map(math.isfinite, self.window.nats))

    def stepped(self) -> Stepped:
        """The end of a window: the optimizer step, and what controllers make of it.  Raises as `moved` does."""
        return self.steered(self.moved())

    def moved(self) -> Stepped:
        """The optimizer step.  Raises Failed, before any weight changes, where a figure is not finite."""
        window, self.window = self.window, None
        assert window is not None
        self.before = window
        losses = {name: nats / window.supervised for name, nats in zip(self.loss.figures, window.nats, strict=True)}
        losses = self.loss.stated(losses, window.supervised)
        if self.failure:  # it only keeps its place
            self.step += 1
            return Stepped(self.step, {}, changed=False)
        trained = self._trained(window)
        norm = math.hypot(*(self._clipped(each.adapter) for each in trained))
        for what, value in (("loss", losses["loss"]), ("gradient", norm)):
            if math.isfinite(value):
                continue
            if what == "gradient" and self._passes_over:
                return self._passed_over(window, losses)
            raise Failed(f"{what} was not finite at step {self.step + 1}", "lower learning_rate")
        rate = self._set_learning_rate()
        for each in trained:
            each.optimizer.step()
        pairs = [pair for each in trained for pair in each.adapter.pairs.values()]
        shrunk = self.decay(pairs, rate) if self.decay else {}
        self.zero_gradients()
        self.step += 1
        self.tokens += window.tokens
        self.supervised_tokens += window.supervised
        figures = {
            **losses, "learning_rate": rate, "grad_norm": norm, "tokens": self.tokens,
            "epoch": self.batches.epochs_after(self.step), "padded": 1 - window.tokens / window.padded,
            "supervised": window.supervised, "supervised_tokens": self.supervised_tokens, **shrunk, **({"loss_scale": self.scaler.factor} if self.scaler else {}),
        }  # fmt: skip
        return Stepped(self.step, figures)

    def steered(self, done: Stepped) -> Stepped:
        """What the controllers add to the step, and their say in the next one."""
        if not done.changed:
            return done
        self.factors = [controller(done) for controller in self.controllers]
        found = {name: value for controller in self.controllers for name, value in controller.figures.items()}
        return Stepped(self.step, done.figures | found, [event for each in self.controllers for event in each.events])

    @property
    def _passes_over(self) -> bool:
        """A step whose gradient is not finite changes nothing (`duo_mode: amp`)."""
        return isinstance(self.optimizer, Duo) and self.optimizer.mode == "amp"

    def _passed_over(self, window: Window, losses: dict[str, float]) -> Stepped:
        self.zero_gradients()
        self.step += 1
        self.tokens += window.tokens
        self.supervised_tokens += window.supervised
        figures = {
            **losses, "learning_rate": 0.0, "grad_norm": math.inf, "tokens": self.tokens, "epoch": self.batches.epochs_after(self.step),
            "padded": 1 - window.tokens / window.padded, "supervised": window.supervised, "supervised_tokens": self.supervised_tokens,
        }  # fmt: skip
        return Stepped(self.step, figures, ["the gradient was not finite: nothing was changed"], changed=False)

    def _trained(self, window: Window) -> Sequence[Stream | Clone]:
        """What this step moves: the adapter, or the clones that have rows in it."""
        if not self.clones:
            return [self]
        tasks = {row.task for micro_batch in window.micro_batches for row in micro_batch}
        return [clone for task, clone in self.clones.items() if task in tasks]

    def _clipped(self, adapter: Adapter) -> float:
        """The norm of the gradient, which is cut to the limit; as torch's clip_grad_norm_, without its work for several devices."""
        gradients = [value.grad for value in adapter.parameters() if value.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))))
        if self.max_grad_norm is not None and (factor := self.max_grad_norm / (norm + 1e-6)) < 1:
            torch._foreach_mul_(gradients, factor)
        return norm

    def _set_learning_rate(self) -> float:
        """The one place where a learning rate is written: schedule x controllers."""
        factor = self.schedule(self.step)
        for other in self.factors:
            factor *= other
        for optimizer in (self.optimizer, *(clone.optimizer for clone in self.clones.values())):
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def zero_gradients(self) -> None:
        values = [value for adapter in self.adapters for value in adapter.parameters()]
        if gradients := [value.grad for value in values if value.grad is not None]:
            torch._foreach_zero_(gradients)

    def why_done(self, step: Stepped) -> str | None:
        if self.step >= self.steps:
            return "steps"
        return next((why for stop in self.stops if (why := stop(step))), None)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step depends on; taken at a step boundary."""
        assert self.window is None, "a stream is saved between its steps"
        self.settle()
        return {
            "step": self.step,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "audits": self.audits,
            "factors": list(self.factors),
            "adapter": self.adapter.state_dict(),
            "optimizer": copied(self.optimizer.state_dict()),
            "clones": {
                task: {"adapter": clone.adapter.state_dict(), "optimizer": copied(clone.optimizer.state_dict())}
                for task, clone in self.clones.items()
            },
            **({"scaler": self.scaler.state_dict()} if self.scaler else {}),
            **{key: [part.state_dict() for part in parts] for key, parts in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.tokens, self.audits, self.factors = (
            state[key] for key in ("step", "tokens", "audits", "factors")
        )
        self.supervised_tokens = state.get("supervised_tokens", 0)  # the version before counted none
        self.adapter.load_state_dict(state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])
        self.clones.clear()
        for task, kept in state.get("clones", {}).items():  # the version before had none
            clone = self.clone(task)
            clone.adapter.load_state_dict(kept["adapter"])
            clone.optimizer.load_state_dict(kept["optimizer"])
        for key, parts in self._parts().items():
            for part, kept in zip(parts, state[key], strict=True):
                part.load_state_dict(kept)

    def _parts(self) -> dict[str, Sequence[Part]]:
        return {"loss": [self.loss], "schedule": [self.schedule], "controllers": self.controllers, "stops": self.stops}
