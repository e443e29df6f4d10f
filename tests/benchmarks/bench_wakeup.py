"""How long after an entry is durable a waiting `swarm wait` returns, beside what the bus itself needs for a message.

    python tests/benchmarks/bench_wakeup.py [ROUNDS]        # default 100; no model is loaded

Wanted: p99 of at most 0.5 s.  The agent is a process of its own, as `swarm wait` is; the log has no coordinator.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm import Agent
from swarm.agents.agent import open_run
from tests.benchmarks.bench_bus import command_ms, members_in, percentiles


def waits(run: str, pipe: Connection) -> None:
    """Tells when each of its waits returned, by the clock of the machine."""
    with Agent("ada", run) as ada:
        pipe.send(0.0)
        while True:
            woken = ada.wait("question | failed", timeout_seconds=60)
            pipe.send(time.monotonic())
            if woken.cause != "question":
                return


def wakings(run: Path, rounds: int) -> list[float]:
    """Seconds, sorted."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=waits, args=(str(run), there), daemon=True)
    process.start()
    here.recv()
    found = []
    with Agent("bob", run) as bob:
        for _ in range(rounds):
            time.sleep(0.3 + random.uniform(0, 0.4))
            bob.post("go on?", "run", asks="ada")
            durable = time.monotonic()
            found.append(here.recv() - durable)
    process.terminate()
    process.join()
    return sorted(found)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    with tempfile.TemporaryDirectory() as place:
        run = open_run("wakeup", "owner", Path(place) / "runs").path
        seconds = wakings(run, rounds)
        milliseconds = asyncio.run(command_ms(members_in(place), rounds))
    print(f"entry to wake-up: {percentiles(seconds, 's')} ({rounds} rounds; wanted p99 0.50 s)")
    print(f"the bus, hub to member: {percentiles(milliseconds, 'ms')}")


if __name__ == "__main__":
    main()
