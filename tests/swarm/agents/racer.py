"""`python -m tests.swarm.agents.racer cli|python|mcp NAME RUN SEED TTL`: claims and finishes tasks until all are done.

It knows tasks by the log and nothing else; whoever dies here just stops.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time

from swarm.agents.agent import Agent, Refused

WORK_SECONDS = {"cli": 0.1, "python": 1.5, "mcp": 1.0}
"""So that all kinds get their share: a command takes longer than a call."""


def open_tasks(agent: Agent) -> list[str]:
    return [ref for ref, task in agent.state.tasks.items() if task.role is None and task.done is None]


def by_python(name: str, run: str, draws: random.Random, ttl: float) -> None:
    with Agent(name, run) as agent:
        while found := open_tasks(agent):
            try:
                with agent.claim(draws.choice(found), ttl_seconds=ttl) as lease:
                    time.sleep(WORK_SECONDS["python"])
                    lease.check()
            except Refused:
                time.sleep(0.05)


def by_command(name: str, run: str, draws: random.Random, ttl: float) -> None:
    def swarm(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "swarm.cli", *words, "--as", name, "--run", run, "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with Agent(name, run) as reader:
        while found := open_tasks(reader):
            claimed = swarm("claim", ref := draws.choice(found), "--ttl", str(ttl))
            if claimed.returncode == 0:
                time.sleep(WORK_SECONDS["cli"])
                claimed = swarm("done", ref, "--token", str(json.loads(claimed.stdout)["token"]))
            assert claimed.returncode in {0, 5}, claimed.stderr


async def by_model(name: str, run: str, draws: random.Random, ttl: float) -> None:
    from mcp import Client, StdioServerParameters

    words = ["-m", "swarm.cli", "mcp", "--as", name, "--run", run]
    with Agent(name, run) as reader:
        async with Client(StdioServerParameters(command=sys.executable, args=words, env=dict(os.environ))) as client:
            while found := open_tasks(reader):
                answer = await client.call_tool("claim", {"ref": (ref := draws.choice(found)), "ttl": ttl})
                token = re.search(r"token=(\d+)", answer.content[0].text)  # type: ignore[union-attr]
                if token:
                    await asyncio.sleep(WORK_SECONDS["mcp"])
                    await client.call_tool("settle", {"ref": ref, "token": int(token[1]), "how": "done"})
                else:
                    await asyncio.sleep(0.05)


if __name__ == "__main__":
    kind, own, where, seed, seconds = sys.argv[1:]
    if kind == "mcp":
        asyncio.run(by_model(own, where, random.Random(seed), float(seconds)))
    else:
        {"cli": by_command, "python": by_python}[kind](own, where, random.Random(seed), float(seconds))
