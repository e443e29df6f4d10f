"""Who takes part in the trial (test_trial.py): agents that post and judge, one of them over MCP, and somebody who watches the dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

from mcp import Client, StdioServerParameters, stdio_client

from swarm import Agent
from swarm.errors import UserError
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

PACE_SECONDS = 0.05
JUDGED = {"eval_loss": 0.5, "base_eval_loss": 2.0}
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[red]RED[/red] \u2066"
"""A title, a cleared screen, colours in two ways, marks that turn the direction, markup."""
HARM = (b"\x1b]0;owned", "\u202e".encode(), "\u2066".encode(), "\x9b".encode())


class Poster(threading.Thread):
    """An agent that posts and judges; it notes what was acknowledged."""

    def __init__(
        self, name: str, folder: RunFolder, over: threading.Event, text: str = "", *, judges: bool = False
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.folder, self.over, self.text, self.judges = folder, over, text, judges
        self.acknowledged: list[str] = []
        self.judged = 0

    def run(self) -> None:
        with Agent(self.name, self.folder.path) as agent:
            for number in range(10**9):
                if self.over.is_set():
                    return
                known = f"{self.name} {number}"
                with contextlib.suppress(UserError):
                    agent.post(f"{known} {self.text}", "run", idem=known.replace(" ", "-"))
                    self.acknowledged.append(known)
                if self.judges:
                    self._judge(agent)
                time.sleep(PACE_SECONDS)

    def _judge(self, agent: Agent) -> None:
        for ref in to_judge(agent):
            with contextlib.suppress(UserError):
                agent.judge(ref, agent.claim(ref).token, "SUCCESS", figures=JUDGED)
                self.judged += 1


def to_judge(agent: Agent) -> list[str]:
    state = agent.state
    found = [f"{stream.name}/validate" for stream in state.streams.values() if state.next_role(stream) == "validate"]
    return [ref for ref in found if state.tasks[ref].lease is None]


class OverMcp(Poster):
    """The same over MCP alone."""

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        words = ["-m", "swarm.cli", "mcp", "--as", self.name, "--run", str(self.folder.path)]
        how = StdioServerParameters(command=sys.executable, args=words, env=sp.environment())
        async with Client(stdio_client(how)) as client:
            number = 0
            while not self.over.is_set():
                known, number = f"{self.name} {number}", number + 1
                words_of = {"ref": "run", "text": f"{known} {self.text}", "idem": known.replace(" ", "-")}
                if not (await client.call_tool("post", words_of)).is_error:
                    self.acknowledged.append(known)
                await self._claim_and_settle(client)
                await asyncio.sleep(PACE_SECONDS)

    async def _claim_and_settle(self, client: Client) -> None:
        with Agent(self.name, self.folder.path) as looking:
            refs = to_judge(looking)
        for ref in refs:
            claimed = await client.call_tool("claim", {"ref": ref})
            if claimed.is_error:
                continue
            token = int(str(claimed.content[0].text).partition("token=")[2].split()[0])  # type: ignore[union-attr]
            words = {"ref": ref, "token": token, "how": "done", "verdict": "SUCCESS", "figures": JUDGED}
            self.judged += not (await client.call_tool("settle", words)).is_error


class Watcher(threading.Thread):
    """Keeps the dashboard open in a terminal of its own; `harm` is what reached that terminal and should not have."""

    def __init__(self, folder: RunFolder, over: threading.Event) -> None:
        super().__init__(name="watcher", daemon=True)
        self.folder, self.over = folder, over
        self.harm: set[bytes] = set()
        self.pictures = 0

    def run(self) -> None:
        while not self.over.is_set():
            screen, terminal = pty.openpty()
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
            process = subprocess.Popen(
                [sys.executable, "-m", "swarm.cli", "watch", str(self.folder.path)], stdin=terminal, stdout=terminal, stderr=terminal,
                env={**sp.environment(), "TERM": "xterm-256color"}, start_new_session=True,
            )  # fmt: skip
            os.close(terminal)
            self._look(screen, process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(screen)

    def _look(self, screen: int, process: subprocess.Popen[bytes]) -> None:
        before = b""
        while not self.over.is_set() and process.poll() is None:
            if not select.select([screen], [], [], 0.5)[0]:
                continue
            try:
                sent = os.read(screen, 1 << 16)
            except OSError:  # the other end is closed
                return
            self.pictures += b"owned" in before + sent
            self.harm |= {harm for harm in HARM if harm in before + sent}
            before = sent[-20:]
