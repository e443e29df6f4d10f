"""What judging the streams of a group costs, together and one after another, as a clerk does it at the end of a run.

    python -m tests.benchmarks.bench_judging [--streams 8] [--questions 32] [--rounds 2]

Streams of ranks 4 to 32 on the embedded base, 100 held-out rows of the demo.  CPU seconds of this process, ways interleaved.  One after
another: each task loads the base, and an evaluation measures again what the validation has measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.event import JUDGING, Event, Role
from swarm.messages import Message, Piece, Report
from swarm.settings import StreamSettings
from trainer import roles
from trainer.judge import measured
from trainer.lease import Lease
from trainer.place import Place
from trainer.work import Work

DATA = Path(__file__).resolve().parents[2] / "configs/data/demo"
RANKS = (4, 8, 16, 32)


class Tasks:
    """Of one role, that arrive at once."""

    def __init__(self, role: Role, pieces: Sequence[Piece]) -> None:
        self.events: list[Event] = []
        made = [piece.model_copy(update={"role": role, "ref": f"{piece.stream}/{role}"}) for piece in pieces]
        self._waiting = [Work(piece, Lease(piece.ref, piece.token, self._hear)) for piece in made]

    def _hear(self, message: Message, fact: bool) -> None:
        if isinstance(message, Report):
            self.events.append(message.event())

    def arrived(self, at_most: int | None = None) -> list[Work]:
        found = self._waiting[:at_most]
        self._waiting = self._waiting[len(found) :]
        return [work for work in found if work.lease.begin()]

    def ended(self, work: Work, error: Exception | None) -> None:
        if error:
            raise error

    def wait(self) -> None:
        raise AssertionError("nothing is paused")


def trained(place: Place, streams: int, questions: int) -> list[Piece]:
    """As judges are given them."""
    found = []
    for number in range(streams):
        settings = StreamSettings.model_validate(
            {
                "base_model": "tiny-toon", "datasets": [{"path": str(DATA / "train.jsonl"), "type": "chatml"}], "lora_r": RANKS[number % 4],
                "test_datasets": [{"path": str(DATA / "eval.jsonl"), "type": "chatml"}], "sequence_len": 256, "micro_batch_size": 8,
                "max_steps": 4, "learning_rate": 3e-3, "eval_rows": questions, "seed": number,
            }
        )  # fmt: skip
        piece = Piece(ref="-", token=number + 1, role="train", stream=f"s{number}", settings=settings)
        rows = _done(piece, "prepare", place)
        piece = piece.model_copy(update={"prepared": rows["path"], "prepared_sha256": rows["sha256"]})
        last = _done(piece, "train", place)
        found.append(piece.model_copy(update={"checkpoint": last["path"], "sha256": last["sha256"]}))
    return found


def _done(piece: Piece, role: Role, place: Place) -> dict[str, object]:
    """What its result says."""
    said: list[Event] = []
    lease = Lease(
        f"{piece.stream}/{role}",
        piece.token,
        lambda one, _: said.extend([one.event()] if isinstance(one, Report) else []),
    )
    lease.begin()
    roles.load(role).run(piece.model_copy(update={"role": role, "ref": lease.ref}), lease, place)
    return said[-1].facts()


def together(pieces: Sequence[Piece], place: Place) -> None:
    for role in JUDGING:
        roles.load(role).together(Tasks(role, pieces), place)  # type: ignore[attr-defined]


def one_by_one(pieces: Sequence[Piece], place: Place) -> None:
    for piece in pieces:
        for role in JUDGING:
            roles.load(role).together(Tasks(role, [piece]), place)  # type: ignore[attr-defined]
            measured.losses_kept(piece, place)  # gone


WAYS: dict[str, Callable[[Sequence[Piece], Place], None]] = {"one after another": one_by_one, "together": together}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, number in (("streams", 8), ("questions", 32), ("rounds", 2)):
        parser.add_argument(f"--{name}", type=int, default=number)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        place = Place(Path(folder), "cpu")
        pieces = trained(place, options.streams, options.questions)
        for number in range(options.rounds):
            seconds = {}
            for way, judge in WAYS.items():
                measured._measured.clear()
                began = time.process_time()
                judge(pieces, place)
                seconds[way] = time.process_time() - began
            costs = ", ".join(f"{way} {cost:.1f} s" for way, cost in seconds.items())
            print(
                f"round {number + 1}: {costs}: {seconds['together'] / seconds['one after another']:.2f}x of the CPU time",
                flush=True,
            )


if __name__ == "__main__":
    main()
