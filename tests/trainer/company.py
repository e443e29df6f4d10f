"""Trainings of one process for tests: pieces arrive when a test says so, orders come at given steps, ends are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from swarm.events import Event
from swarm.messages import Message, Metrics, Order, Piece, Report
from swarm.settings import StreamSettings
from trainer.engines import shared
from trainer.lease import Lease
from trainer.place import Place
from trainer.work import Work


class Company:
    """Mates of a group; whoever arrives is trained by the thread that calls `train`."""

    def __init__(self, run_folder: Path, prepared: dict[str, str], device: str = "cpu") -> None:
        self.place = Place(run_folder, device)
        self.prepared = prepared
        self.token = 0
        self.waiting: list[Work] = []
        self.works: dict[str, Work] = {}
        self.errors: dict[str, Exception | None] = {}
        self.events: dict[str, list[Event]] = {}
        self.losses: dict[str, list[float]] = {}
        self.figures: dict[str, list[dict[str, float]]] = {}
        """Of the logged steps of a stream."""
        self.at: Callable[[str, int], None] = lambda stream, step: None
        """Called with the last logged step of a stream."""
        self.idle: Callable[[], None] = lambda: None
        """Called where nothing can be done but wait."""

    def come(self, stream: str, settings: StreamSettings, **given: Any) -> None:
        self.token += 1
        [(folder, sha256)] = self.prepared.items()
        piece = Piece(
            ref=f"{stream}/train", token=self.token, role="train", stream=stream, settings=settings, prepared=folder,
            prepared_sha256=sha256, **given,
        )  # fmt: skip
        events, losses = self.events.setdefault(stream, []), self.losses.setdefault(stream, [])
        figures = self.figures.setdefault(stream, [])

        def send(message: Message, fact: bool) -> None:
            if isinstance(message, Report):
                events.append(message.event())
            if isinstance(message, Metrics):
                rows = [row for row in message.rows if "loss" in row.figures]
                losses.extend(row.figures["loss"] for row in rows)
                figures.extend(dict(row.figures) for row in rows)

        self.works[stream] = Work(piece, Lease(piece.ref, piece.token, send))
        self.waiting.append(self.works[stream])

    def order(self, stream: str, what: str) -> None:
        work = self.works[stream]
        work.lease.take(Order(ref=work.piece.ref, token=work.lease.token, what=what))

    def train(self) -> None:
        shared.train(self, self.place)

    # ---- what the group asks ----

    def arrived(self) -> list[Work]:
        for name, work in list(self.works.items()):
            if work.lease.step is not None:
                self.at(name, work.lease.step)
        found, self.waiting = self.waiting, []
        return [work for work in found if work.lease.begin()]

    def ended(self, work: Work, error: Exception | None) -> None:
        work.lease.flush_metrics()
        self.errors[work.piece.stream] = error

    def wait(self) -> None:
        self.idle()

    # ---- what came of it ----

    def last(self, stream: str, kind: str) -> Any:
        return [event for event in self.events[stream] if event.kind == kind][-1]

    def weights(self, stream: str) -> dict[str, torch.Tensor]:
        """Of its last checkpoint."""
        saved = next(event for event in reversed(self.events[stream]) if event.kind in {"trained", "checkpoint"})
        return load_file(self.place.run_folder / saved.path / "adapter_model.safetensors")


def same(mine: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)
