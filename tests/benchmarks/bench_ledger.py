"""20 agents race on a research ledger while some are killed: is a proposal made twice, lost, or held by the dead longer than a lease?

    python tests/benchmarks/bench_ledger.py [SECONDS]        # default 20; no model is loaded

The ideas are tasks of a run without a coordinator: each agent, a process of its own, claims one under a lease of a second, records its
proposal under the idea's name (as in a run, a second one of that name is refused), and finishes the task.  One in ten is killed at a random moment and another one
takes its place.  Wanted: each idea proposed once, none left, none held by a dead agent longer than its lease (and the look that ends it).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm import Agent
from swarm import events as ev
from swarm.agents.agent import open_run
from swarm.errors import Refused, UserError
from swarm.log import Log
from swarm.state import fold

AGENTS, IDEAS, LEASE_SECONDS = 20, 120, 1.0


def works(run: str, name: str) -> None:
    with Agent(name, run) as agent:
        while left := [ref for ref, task in agent.state.tasks.items() if ref.startswith("idea/") and not task.done]:
            ref = random.choice(left)
            try:
                token = agent.take(ref, ttl_seconds=LEASE_SECONDS)
                time.sleep(random.uniform(0.01, 0.1))
                with contextlib.suppress(Refused):  # whoever held it before died after that
                    agent.task(f"proposal/{ref.partition('/')[2]}")
                agent.finish(ref, token)
            except (Refused, UserError):
                continue  # another one holds it


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        run = open_run("ledger", "owner", Path(place) / "runs").path
        with Agent("owner", run) as owner:
            for number in range(IDEAS):
                owner.task(f"idea/{number}")
        agents = [spawn.Process(target=works, args=(str(run), f"agent{n}")) for n in range(AGENTS)]
        for one in agents:
            one.start()
        killed, number, end = set[str](), AGENTS, time.monotonic() + seconds
        while any(one.is_alive() for one in agents) and time.monotonic() < end + 60:
            time.sleep(random.uniform(0.2, 0.6))
            alive = [n for n, one in enumerate(agents) if one.is_alive()]
            if alive and time.monotonic() < end:
                victim = random.choice(alive)
                os.kill(agents[victim].pid or 0, signal.SIGKILL)
                killed.add(str(agents[victim].pid))
                agents[victim] = spawn.Process(target=works, args=(str(run), f"agent{number}"))
                agents[victim].start()
                number += 1
        for one in agents:
            one.kill()
            one.join()
        report(run, len(killed))


def report(run: Path, killed: int) -> None:
    entries = list(Log(run / "COLLABORATION.md").entries())
    state = fold(entries)
    made = [
        entry.event.ref
        for entry in entries
        if isinstance(entry.event, ev.Task) and entry.event.ref.startswith("proposal/")
    ]
    claims: dict[str, float] = {}
    longest = 0.0
    for entry in entries:
        if isinstance(entry.event, ev.Claim):
            claims[entry.event.ref] = entry.time
        elif isinstance(entry.event, ev.Expire):
            longest = max(longest, entry.time - claims[entry.event.ref])
    open_tasks = sum(not task.done for ref, task in state.tasks.items() if ref.startswith("idea/"))
    print(
        f"{AGENTS} agents, {killed} killed, {IDEAS} ideas: {len(set(made))} proposed, {len(made) - len(set(made))} twice, {open_tasks} left open"
    )
    print(
        f"the longest that a dead agent held one: {longest:.0f} s (lease {LEASE_SECONDS:g} s; log times are whole seconds)"
    )


if __name__ == "__main__":
    main()
