"""Members that send as fast as they can and keep to no window: one process for each, with its own key."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from pathlib import Path

import zmq

from bus.envelope import Envelope, pack
from bus.keys import Join
from tests.bus.raw import hello, raw_dealer

UNKNOWN = "\n".join(f"key{number}: {number}" for number in range(60_000))
DEEP = "".join(f"{' ' * depth}a:\n" for depth in range(600))
ITEMS = "x[16000]:\n" + "\n".join(["  - a: 1"] * 16_000)
"""What takes longest to read of all that was tried, for its length."""
QUOTED = 'x: "' + '\\"' * 100_000
ROWS = "rows[2]{step,kind,time,loss}:\n  1,train,1.5,0.1\n  2,train,1.5,0.1"
KINDS: dict[str, list[tuple[str, str]]] = {
    "viewer": [("ask", UNKNOWN), ("ask", "what: links"), ("ask", "what: append\nreport:\n  kind: post\n  ref: run\n  body: x"), ("ask", ITEMS[:4000])],
    "agent": [("ask", UNKNOWN[:200_000]), ("ask", "what: append\nreport:\n  kind: post\n  ref: run\n  body: flood"), ("ask", "what: links"), ("ask", ITEMS), ("ask", DEEP)],
    "admin": [
        ("ask", UNKNOWN[:200_000]), ("ask", "what: append\nreport:\n  kind: post\n  ref: run\n  body: flood"), ("ask", ITEMS), ("ask", QUOTED),
        ("ask", "what: workers"), ("ask", "what: bus"),
    ],
    "worker": [
        ("metrics", f"stream: only\ntoken: 3\nsteps: 9\n{ROWS}"), ("hello", UNKNOWN[:60_000]), ("report", UNKNOWN[:200_000]),
        ("report", "kind: post\nref: run\nbody: x"), ("report", "kind: done\nref: only/train\nfacts:\n  tok: 3"), ("bye", ""),
        ("report", ITEMS), ("metrics", ITEMS * 4),
    ],
}  # fmt: skip
"""The most expensive messages that we know, by the role of their sender."""


def flood(join: Path, role: str, seconds: float) -> None:
    """Send for so long; numbers rise, so that nothing is a duplicate, and `after` is 0, so that nothing is too early."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = raw_dealer(context, Join.load(join))
    dealer.send(hello("flood"))
    dealer.recv()
    end = time.monotonic() + seconds
    bodies = itertools.cycle(KINDS[role])
    for seq in itertools.count(1):
        type_, body = next(bodies)
        dealer.send(
            pack(Envelope(type_, body, incarnation="flood", seq=seq, correlation=f"f:{seq}" if type_ == "ask" else ""))
        )
        if time.monotonic() > end:
            break
        while dealer.poll(0):
            dealer.recv()
    dealer.close(0)
    context.term()


def start(joins: dict[str, tuple[Path, str]], seconds: float) -> list[multiprocessing.process.BaseProcess]:
    spawn = multiprocessing.get_context("spawn")
    processes = [
        spawn.Process(target=flood, args=(path, role, seconds), name=name) for name, (path, role) in joins.items()
    ]
    for process in processes:
        process.start()
    return list(processes)
