"""Modes that act: an adapter for each task in mode multi, snapshots in mirror.

single   the stream's one adapter is trained
multi    each task trains a clone of it; left again, they are merged into it
mirror   snapshots were taken before; left again, the best is restored where the loss on the anchor rows got worse since
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from swarm.errors import UserError
from trainer.loop.batches import tasks_of
from trainer.loop.clones import Merge, conflict, copied, merge, merged_state
from trainer.loop.parts import Stepped
from trainer.loop.steering import Steering
from trainer.loop.stream import Stream
from trainer.unified import MIRROR, MULTI, SINGLE, UnifiedController, stability_of

MOST_TASKS = 16
"""A clone of each is in memory."""


@dataclass(frozen=True)
class Acts:
    """What the modes do beside the learning rate; by default nothing."""

    merge: Merge | None = None
    """How the clones of mode multi become one adapter; None: there are no clones."""
    anchor_rows: int = 0
    """Held-out rows whose loss says what was lost; 0: stability is not measured and nothing is restored."""
    anchor_steps: int = 20
    """Their loss is measured, and in mode single a snapshot taken, every so many steps."""
    snapshots: int = 3
    """Kept, the newest."""
    rho: float = 0.02
    """A share by which the anchor loss may have got worse."""
    pull: float = 0.0
    """In mode mirror, the share of the way back to the best snapshot that each step goes."""


class Modes(Steering[UnifiedController]):
    def __init__(self, controller: UnifiedController, acts: Acts) -> None:
        super().__init__(controller)
        self.acts = acts
        self._start: list[Tensor] | None = None
        """What the clones began as, for TIES."""
        self._best_task = 0
        self._ring: list[dict[str, Any]] = []
        self._anchor: dict[str, float] = {}
        """The newest loss of the anchor rows, and the lowest."""
        self._notes: list[str] = []
        self._own: dict[str, float] = {}

    def join(self, stream: Stream) -> None:
        self.stream, self.rows = stream, stream.held_out[: self.acts.anchor_rows]
        if self.acts.anchor_rows and not self.rows:
            raise UserError("controller_anchor_rows", "no rows are held out", "set val_set_size, or name val_datasets")
        self.tasks = tasks_of(stream.batches.rows) if self.acts.merge else []
        if self.acts.merge and not 2 <= len(self.tasks) <= MOST_TASKS:
            what = f"the rows are of {len(self.tasks)} tasks, where adapters of 2 to {MOST_TASKS} can be merged"
            raise UserError("controller_merge", what, "name a column of `datasets` with `task:`, or leave it out")

    def begin(self) -> None:
        """Tasks that begin apart share no step."""
        if self.controller.trace.mode == MULTI:
            self._enter(MULTI)

    def __call__(self, step: Stepped) -> float:
        self._own = {}
        before = self.controller.trace.mode
        self._measure(step.step)
        if step.step == 1 and before == MIRROR:
            self._enter(MIRROR)  # the anchor rows can be looked at from here on
        decided = self.controller.update(step.figures["loss"], **self._seen())
        if decided.mode != before:
            self._leave(before, step.step)
            self._enter(decided.mode)
        elif decided.mode == MIRROR and self.acts.pull and self._ring:
            self._pull()
        self._events, self._notes = (*decided.events, *self._notes), []
        return float(decided)

    @property
    def figures(self) -> Mapping[str, float]:
        return {**super().figures, **self._own}

    def settle(self) -> None:
        if self.stream.clones:
            self._merge()

    # ---- what phi is made of ----

    def _measure(self, step: int) -> None:
        """The anchor rows' loss, and a snapshot while all is calm."""
        if not self.rows or step % self.acts.anchor_steps:
            return
        self.settle()
        now = self._look()
        self._anchor = {"now": now, "best": min(now, self._anchor.get("best", now))}
        if self.acts.merge == "best" and self.stream.clones:
            losses = [self._look(clone) for clone in range(1, 1 + len(self.stream.clones))]
            self._best_task = losses.index(min(losses))
        if self.controller.trace.mode == SINGLE:
            self._keep(step, now)

    def _look(self, at: int = 0) -> float:
        assert self.stream.look is not None, "a stream is stepped by a loop"
        return self.stream.look(self.rows, self.stream.adapters[at])

    def _seen(self) -> dict[str, float]:
        """Conflict and stability, where they are known."""
        if self.stream.clones:
            self._own["conflict"] = conflict([clone.adapter for clone in self.stream.clones.values()])
        if self._anchor:
            self._own["anchor_loss"] = self._anchor["now"]
            self._own["stability"] = stability_of(self._anchor["now"], self._anchor["best"])
        return {name: value for name, value in self._own.items() if name in {"conflict", "stability"}}

    # ---- modes ----

    def _enter(self, mode: int) -> None:
        if mode == MULTI and self.acts.merge:
            self._start = [value.detach().clone() for value in self.stream.adapter.parameters()]
            for task in self.tasks:
                self.stream.clone(task)
            self._notes.append(f"an adapter for each of {len(self.tasks)} tasks: {', '.join(self.tasks)}")
        if mode == MIRROR and self.rows:
            self._keep(self.stream.step, self._look())

    def _leave(self, mode: int, step: int) -> None:
        if self.stream.clones:
            self._merge()
            self._merge_optimizers()
            self.stream.clones.clear()
            self._start = None
            self._notes.append(f"the tasks' adapters are merged ({self.acts.merge})")
        if mode == MIRROR and self._ring:
            self._restore(self._look())

    # ---- multi ----

    def _merge(self) -> None:
        clones = list(self.stream.clones.values())
        if self.acts.merge == "best":
            clones = [clones[self._best_task]]
        merge(
            self.stream.adapter,
            [clone.adapter for clone in clones],
            self._start if self.acts.merge == "ties" else None,
        )

    def _merge_optimizers(self) -> None:
        clones = list(self.stream.clones.values())
        if self.acts.merge == "best":
            clones = [clones[self._best_task]]
        states = [copied(clone.optimizer.state_dict()) for clone in clones]
        self.stream.optimizer.load_state_dict(merged_state(states))

    # ---- mirror ----

    def _keep(self, step: int, loss: float) -> None:
        stream = self.stream
        kept = {
            "step": step, "loss": loss, "adapter": [copied(value) for value in stream.adapter.parameters()],
            "optimizer": copied(stream.optimizer.state_dict()), "schedule": stream.schedule.state_dict(),
            "objective": stream.loss.state_dict(),
        }  # fmt: skip
        self._ring = [*self._ring, kept][-self.acts.snapshots :]

    def _best_kept(self) -> dict[str, Any]:
        return min(self._ring, key=lambda kept: float(kept["loss"]))

    def _restore(self, now: float) -> None:
        """Order of rows and dropout follow from seed and step, so that there is no random state to restore; the steps go on."""
        best = self._best_kept()
        if now <= best["loss"] * (1 + self.acts.rho):
            self._notes.append(f"kept: anchor loss {now:.4g}, {best['loss']:.4g} at step {best['step']}")
            return
        with torch.no_grad():
            for value, kept in zip(self.stream.adapter.parameters(), best["adapter"], strict=True):
                value.copy_(kept)
        self.stream.optimizer.load_state_dict(copied(best["optimizer"]))
        self.stream.schedule.load_state_dict(best["schedule"])
        self.stream.loss.load_state_dict(best["objective"])
        self._anchor["now"] = best["loss"]
        self._notes.append(f"restored step {best['step']}: anchor loss {now:.4g} -> {best['loss']:.4g}")

    @torch.no_grad()
    def _pull(self) -> None:
        for value, kept in zip(self.stream.adapter.parameters(), self._best_kept()["adapter"], strict=True):
            value.lerp_(kept.to(value), self.acts.pull)

    # ---- what goes on ----

    def state_dict(self) -> dict[str, Any]:
        """Copies of what a later step changes: the loop may have gone on when they are written."""
        return {
            "controller": self.controller.state_dict(), "start": copied(self._start), "best_task": self._best_task,
            "ring": list(self._ring), "anchor": dict(self._anchor),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self._start, self._best_task = state["start"], state["best_task"]
        self._ring, self._anchor = state["ring"], state["anchor"]
