"""20 agents race on the ledger of a research while some are killed: is a proposal run twice, lost, or held by the dead longer than a lease?

    python tests/benchmarks/bench_ledger.py [IDEAS [LEASE_SECONDS]]        # default 24 and 10; some minutes on two cores

A research of the embedded base with its coordinator.  Each idea is a task; an agent, a process of its own, claims one, proposes it under
the idea's name and finishes the task; the coordinator has each proposal trained and judged.  Twenty of those that hold a task are killed,
one a second or so, and another one takes the place of each.  Wanted: each idea proposed once, trained once and answered, none left, and no task held by a dead
agent longer than its lease.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from swarm import Agent
from swarm import events as ev
from swarm.errors import Refused, UserError, UserErrors
from swarm.log import Log
from swarm.state import fold
from tests.runs import swarm_process as sp

AGENTS, IDEAS, LEASE_SECONDS, KILLS, SEED = 20, 24, 10.0, 20, 0
GOAL = {
    "config": "run.yaml", "start": "start", "proposals": 64, "at_once": 4, "idle_minutes": 5,
    "phases": {"rates": {"space": {"learning_rate": {"low": 1e-5, "high": 1e-1}}}},
}  # fmt: skip


def works(run: str, name: str, lease_seconds: float) -> None:
    draws = random.Random(name)
    with Agent(name, run) as agent:
        while left := [ref for ref, task in agent.state.tasks.items() if ref.startswith("idea/") and not task.done]:
            with contextlib.suppress(Refused, UserError, UserErrors):  # another one holds it
                idea = draws.choice(left)
                token = agent.take(idea, ttl_seconds=lease_seconds)
                time.sleep(draws.uniform(0.0, 1.0))
                number = int(idea.partition("/")[2])
                with contextlib.suppress(Refused):  # whoever held it before died after that
                    rate = f"learning_rate={1e-3 * (1 + number / 100):.6f}"
                    agent.propose(f"idea-{number}", "start", [rate], why="to be tried")
                time.sleep(draws.uniform(0.0, 1.0))
                agent.finish(idea, token)
            time.sleep(0.1)


class Ends(threading.Thread):
    """When expiries of leases became known, by the clock of the machine."""

    def __init__(self, run: Path) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.seen, self.over = run, dict[int, float](), threading.Event()

    def run(self) -> None:
        with Agent("watcher", self.run_folder) as watcher:
            last = 0
            while not self.over.is_set():
                for entry in watcher.tail(last):
                    last = entry.seq
                    self.seen[last] = time.monotonic()
                time.sleep(0.02)


def race(run: Path, ideas: int, lease_seconds: float) -> dict[str, float]:
    """When each agent was killed."""
    spawn, draws, killed, number = multiprocessing.get_context("spawn"), random.Random(SEED), dict[str, float](), 0

    def another() -> tuple[str, multiprocessing.process.BaseProcess]:
        nonlocal number
        number += 1
        name = f"agent{number}"
        process = spawn.Process(target=works, args=(str(run), name, lease_seconds), daemon=True)
        process.start()
        return name, process

    with Agent("owner", run) as owner:
        for n in range(ideas):
            owner.task(f"idea/{n}")
        agents = [another() for _ in range(AGENTS)]
        while any(not task.done for ref, task in owner.state.tasks.items() if ref.startswith("idea/")):
            time.sleep(draws.uniform(0.5, 1.5))
            holders = {task.lease.by for task in owner.state.held() if task.lease and task.ref.startswith("idea/")}
            at_work = [n for n, (name, process) in enumerate(agents) if name in holders and process.is_alive()]
            if at_work and len(killed) < KILLS:
                victim = draws.choice(at_work)
                os.kill(agents[victim][1].pid or 0, signal.SIGKILL)
                killed[agents[victim][0]] = time.monotonic()
                agents[victim] = another()
        for _, process in agents:
            process.join(timeout=30)
        owner.finish("research/rates", owner.take("research/rates", ttl_seconds=60))
        owner.wait_for("end", "run", timeout_seconds=1200)
    return killed


def report(run: Path, killed: dict[str, float], seen: dict[int, float], lease_seconds: float) -> None:
    entries = list(Log(run / "COLLABORATION.md").entries())
    state = fold(entries)
    proposed = Counter(e.event.ref for e in entries if isinstance(e.event, ev.Propose))
    joined = Counter(e.event.ref for e in entries if isinstance(e.event, ev.Add))
    trained = Counter(e.event.stream for e in entries if isinstance(e.event, ev.Trained) and e.event.stream in proposed)
    holders: dict[str, str] = {}
    held = []
    for entry in entries:
        match entry.event:
            case ev.Claim(ref=ref):
                holders[ref] = entry.author
            case ev.Expire(ref=ref) if holders.get(ref) in killed:
                held.append(seen[entry.seq] - killed[holders[ref]])
            case _:
                pass
    unanswered = [name for name, one in state.proposals.items() if one.conclusion is None]
    ideas = [task for ref, task in state.tasks.items() if ref.startswith("idea/")]
    print(
        f"{AGENTS} agents, {len(killed)} killed, {len(held)} tasks of theirs ended by their lease; {len(ideas)} ideas:"
    )
    print(f"proposed {len(proposed)}, joined {len(joined)}, trained {len(trained)}; twice: "
          f"{[name for found in (proposed, joined, trained) for name, count in found.items() if count > 1]}")  # fmt: skip
    print(f"left open: {sum(not task.done for task in ideas)} ideas, {len(unanswered)} proposals without an answer")
    longest = max(held, default=0.0)
    verdict = "within it" if longest <= lease_seconds else "LONGER"
    print(f"held by the dead: {longest:.2f} s at the longest of a lease of {lease_seconds:g} s: {verdict}")


def main() -> None:
    ideas = int(sys.argv[1]) if len(sys.argv) > 1 else IDEAS
    lease_seconds = float(sys.argv[2]) if len(sys.argv) > 2 else LEASE_SECONDS
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sp.write_config(place, streams="  start: {lora_r: 2, eval_rows: 0}", steps=2)
        (place / "goal.md").write_text(f"---\n{json.dumps(GOAL)}\n---\nA lower held-out loss.\n")
        words = [sys.executable, "-m", "swarm.cli", "research", "goal.md", "--detach"]
        subprocess.run(words, cwd=place, env=sp.environment(), check=True)
        [run] = (place / "runs").iterdir()
        ends = Ends(run)
        ends.start()
        killed = race(run, ideas, lease_seconds)
        ends.over.set()
        ends.join()
        report(run, killed, ends.seen, lease_seconds)


if __name__ == "__main__":
    main()
