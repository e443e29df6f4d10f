"""Runs made up for the tests: real snapshots at any moment, and a source that plays them; no socket, no file."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from swarm.errors import UserError, UserErrors
from swarm.views.snapshot import BusCounters, Snapshot, StreamRow, WorkerRow

STEPS = 120
KINDS = (
    ("lora-8", "lora r8 α16", 2.31),
    ("lora-32", "lora r32 α64", 2.31),
    ("dora-8", "dora r8 α16", 2.35),
    ("qlora-8", "qlora r8 α16", 2.42),
)
TAIL = (
    "1 05:12 run   run   started by ada",
    "11 05:12 claim lora-8/train   trainer-1   60 s",
    "17 05:12 claim lora-32/train   trainer-2   60 s",
    "18 05:12 checkpoint lora-32/train   trainer-2   step 100 · loss 0.412 · held-out 0.455",
    "19 05:13 trained lora-32/train   trainer-2   120 steps, loss 0.09 · sha256 1e09…",
    "20 05:13 done  lora-32/train   trainer-2",
    "21 05:13 claim lora-32/validate validator   60 s",
    "22 05:13 verdict lora-32/validate validator   SUCCESS · held-out 0.110 against 2.040",
)


def loss_at(step: int, start: float, place: int) -> float:
    noise = math.sin(step * 2.7 + place) * 0.06 + math.sin(step * 7.1 + 3 * place) * 0.05
    return (start - 0.1) * math.exp(-step / (26 + 5 * place)) * (1 + noise) + 0.1


def stream(place: int, step: int, *, state: str = "train", **facts: object) -> StreamRow:
    kind, settings, start = KINDS[place % len(KINDS)]
    name = kind if place < len(KINDS) else f"{kind}-s{place // len(KINDS)}"
    curve = tuple((s, loss_at(s, start, place)) for s in range(1, step + 1))
    losses = {"loss": curve[-1][1], "best_loss": min(y for _, y in curve)} if curve else {}
    measured = {
        **losses,
        **({"eval_loss": loss_at(step, start, place) + 0.04} if step > 40 else {}),
        "first_loss": start,
        "learning_rate": 2e-3 * (1 - step / STEPS) + 1e-5,
        "grad_norm": 1.3,
        "tokens_per_second": 3100 - 210 * place,
        "memory_bytes": 412_000_000 + place * 7_000_000,
    }
    row = StreamRow(
        name=name,
        state=state,
        settings=f"base tiny-toon · {settings} all-linear · adamw 2e-3 cosine",
        step=step,
        steps=STEPS,
        figures=measured,
        base={"eval_loss": 2.04},
        curves={
            "loss": curve,
            "eval_loss": tuple((s, loss_at(s, start, place) + 0.05) for s in range(40, step + 1, 40)),
        },
        trainable=110_000,
        device="cpu",
        eta_seconds=(STEPS - step) * 0.3,
        worker=f"trainer-{place + 1}",
        token=11 + place,
        lease_left_seconds=48,
        checkpoints=tuple(range(40, step + 1, 40)),
    )
    return replace(row, **facts)  # type: ignore[arg-type]


def run_at(step: int, n: int = 4, **facts: object) -> Snapshot:
    """The run when its first stream has done that many steps."""
    streams = [stream(i, max(0, min(STEPS, step - 5 * (i % 7)))) for i in range(n)]
    workers = [
        WorkerRow(
            f"trainer-{i + 1}", ("train",), "working", f"{streams[i].name}/train", "cpu", 4100 + i, 512_000_000, 0.4
        )
        for i in range(min(n, 4))
    ]
    workers.append(WorkerRow("light-1", ("prepare", "validate", "evaluate"), "idle", "", "cpu", 4099, 390_000_000, 0.9))
    snapshot = Snapshot(
        run="demo-1121-0512-7f3a",
        folder="runs/demo-1121-0512-7f3a",
        base="tiny-toon",
        state="running",
        seq=22,
        devices="2 cores",
        elapsed_seconds=step * 0.3,
        now=1000.0 + step * 0.3,
        streams=tuple(streams),
        workers=tuple(workers),
        tail=TAIL,
        bus=BusCounters(41.0, 1200, 0, 0),
    )
    return replace(snapshot, **facts)  # type: ignore[arg-type]


def sketch() -> Snapshot:
    """The moment that the documents show: one validates, one stalled, two train."""
    run = run_at(72)
    done = stream(
        1,
        120,
        state="validate",
        eta_seconds=None,
        worker="light-1",
        token=21,
    )
    stalled = stream(3, 60, state="STALLED", eta_seconds=None, why="no step for 31 s", lease_left_seconds=4)
    return replace(run, streams=(run.streams[0], done, stream(2, 55), stalled))


class Played:
    """A source that gives what it is told; it remembers what was said."""

    def __init__(
        self, snapshot: Snapshot | None = None, moving: Callable[[int], Snapshot] | None = None, hertz: float = 200
    ) -> None:
        self.now = snapshot if snapshot is not None else run_at(72)
        self.moving = moving
        self.hertz = hertz
        self.asked = 0
        self.said: list[tuple[str, str, dict[str, object]]] = []
        self.refusal: UserError | UserErrors | None = None
        self.log = list(TAIL)
        self.closed = False
        self.began = time.monotonic()
        self._changed = threading.Event()

    def become(self, snapshot: Snapshot) -> None:
        self.now = snapshot
        self._changed.set()

    def snapshot(self) -> Snapshot:
        self.asked += 1
        self._changed.clear()
        if self.moving:
            self.now = self.moving(int((time.monotonic() - self.began) * self.hertz))
        return self.now

    def wait(self, timeout_seconds: float) -> bool:
        return self._changed.wait(min(timeout_seconds, 1 / self.hertz) if self.moving else timeout_seconds)

    def say(self, kind: str, ref: str, **facts: object) -> str:
        if self.refusal:
            raise self.refusal
        self.said.append((kind, ref, facts))
        return f"{26 + len(self.said)} {kind} {ref}"

    def add(self, name: str, like: str, changes: Sequence[str], *, warm: bool, why: str = "") -> str:
        return self.say("add", name, like=like, changes=list(changes), warm=warm, why=why)

    def log_lines(self, since: int = 0, stream: str | None = None) -> list[str]:
        return [line for line in self.log if stream is None or f" {stream}" in line]

    def close(self) -> None:
        self.closed = True
