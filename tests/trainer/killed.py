"""Trainings in processes of their own that SIGKILL ends in the midst of a step, and others that go on from what they left.

A process is forked from one that has imported the libraries and computed nothing, so that it costs a fraction of a second.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from swarm.messages import Assign, Message, MetricRow, Piece, Report
from trainer import checkpoint, philog
from trainer.lease import Lease
from trainer.place import Place
from trainer.quiet import quieten
from trainer.roles import train as role
from trainer.trainlog import CSV
from trainer.work import Work

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "trainer.engines.pair", "trainer.engines.trl"])
NOTES = "notes.txt"
PASSING = frozenset({"time", "seconds", "tokens_per_second", "memory_bytes"})
"""Figures of the machine, which no two runs have in common."""


class Watched(Lease):
    """Keeps what is reported; from the logged step `dies_at` on its process is killed as soon as each of its trainings has a whole checkpoint."""

    def __init__(self, piece: Piece, streams: Path, dies_at: int | None) -> None:
        super().__init__(piece.ref, piece.token, self._keep)
        self._streams, self._dies_at = streams, dies_at
        self._first_saved = piece.settings.save_steps
        self.beside: Sequence[Watched] = (self,)

    def figures(self, row: MetricRow, steps: int) -> None:
        super().figures(row, steps)
        if row.kind != "train" or self._dies_at is None or row.step < self._dies_at:
            return
        if all((one.step or 0) > one._first_saved for one in self.beside if one is not self):
            while not all(checkpoints(self._streams / one.stream) for one in self.beside):
                time.sleep(0.01)  # another thread writes them
            os.kill(os.getpid(), signal.SIGKILL)

    def _keep(self, message: Message, fact: bool) -> None:
        if isinstance(message, Report) and (body := message.event().body):
            with (self._streams / NOTES).open("a") as notes:
                notes.write(f"{self.stream}: {body}\n")


class Mates:
    """A group whose members are all there from the beginning."""

    def __init__(self, works: Sequence[Work]) -> None:
        self._works = list(works)

    def arrived(self) -> Sequence[Work]:
        found, self._works = self._works, []
        return [work for work in found if work.lease.begin()]

    def ended(self, work: Work, error: Exception | None) -> None:
        work.lease.flush_metrics()
        if error:
            raise error

    def wait(self) -> None:
        raise AssertionError("nobody pauses")


def train(run_folder: Path, sent: str, dies_at: int | None) -> None:
    """What the process does: a training alone, as its role does it, or those of a group."""
    quieten()
    pieces = Assign.read(sent).pieces
    torch.set_num_threads(1)
    place = Place(run_folder, "cpu")
    leases = [Watched(piece, run_folder / "streams", dies_at) for piece in pieces]
    for lease in leases:
        lease.beside = leases
    if len(leases) > 1:
        role.together(Mates([Work(*one) for one in zip(pieces, leases, strict=True)]), place)
    else:
        leases[0].begin()
        role.run(pieces[0], leases[0], place)


def in_a_process(run_folder: Path, pieces: Sequence[Piece], *, dies_at: int | None = None) -> None:
    process = PROCESSES.Process(target=train, args=(run_folder, Assign(pieces=list(pieces)).toon(), dies_at))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    assert process.exitcode == (0 if dies_at is None else -signal.SIGKILL), process.exitcode


def gone_on(run_folder: Path, piece: Piece) -> Piece:
    """Under the next token, from what lies there."""
    found = checkpoints(run_folder / "streams" / piece.stream)
    paths = [str(path.relative_to(run_folder)) for path in found]
    return piece.model_copy(update={"token": piece.token + 1, "resume_from": paths})


def checkpoints(folder: Path) -> list[Path]:
    """Of all attempts, the newest first."""
    attempts = sorted(folder.glob("t[0-9]*"), key=lambda path: -int(path.name[1:]))
    return [path for attempt in attempts for path in checkpoint.saved_in(attempt)]


# ---- what came of it ----


def left(folder: Path) -> dict[str, Any]:
    """All that a stream's training left, by a path each: every number of its last checkpoint, of its history and of its controller's."""
    last = checkpoints(folder)[0]
    whole: dict[str, Any] = {"stops": checkpoint.opened(last).facts["stops"]}
    for path in last.rglob("*"):
        if path.suffix == ".safetensors":
            whole[str(path.relative_to(last))] = load_file(path)
        elif path.suffix == ".pt":
            whole[str(path.relative_to(last))] = torch.load(path, weights_only=True)
    for path in (*folder.rglob(CSV), *folder.rglob(philog.CSV)):
        whole[str(path.relative_to(folder))] = [
            {name: cell for name, cell in row.items() if name not in PASSING}
            for row in csv.DictReader(path.read_text().splitlines())
        ]
    for path in folder.rglob(philog.TRANSITIONS):
        whole[str(path.relative_to(folder))] = json.loads(path.read_text())
    return dict(flat(whole, last.name))


def flat(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from flat(inner, f"{at}/{key}")
        case list() | tuple():
            yield at, len(value)
            for number, inner in enumerate(value):
                yield from flat(inner, f"{at}/{number}")
        case torch.Tensor():
            bits = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            yield at, (value.dtype, tuple(value.shape), bits)
        case _:
            yield at, repr(value)


def differing(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The paths at which they are not the same, bit for bit."""
    return [path for path in sorted(mine.keys() | other.keys()) if mine.get(path) != other.get(path)]
