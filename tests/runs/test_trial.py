"""An independent trial of a whole run, for `make torture`: processes are killed and frozen, the log is torn, and everybody goes on posting.

Over tcp, in a folder that a group may write to, with a role that two agents share, one of them over MCP.  Nothing that was acknowledged
may be lost or be there twice, no step may be missing, and the run ends as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters, stdio_client

from swarm import Agent
from swarm import events as ev
from swarm.errors import UserError
from swarm.log import run_is_alive, verify
from swarm.log.errors import LogHeld
from swarm.log.lock import Lock
from swarm.rundir import LogFiles, RunFolder
from swarm.weights import adapter_sha256
from tests.runs import swarm_process as sp

pytestmark = [
    pytest.mark.skipif(os.environ.get("TORTURE") != "1", reason="`make torture` runs it"),
    pytest.mark.timeout(1800),
]
FAULTS = int(os.environ.get("TRIAL_FAULTS", "30"))
SEED = int(os.environ.get("TORTURE_SEED", "0"))
SECONDS_PER_FAULT = 10.0
PACE_SECONDS = 0.05
JUDGED = {"eval_loss": 0.5, "base_eval_loss": 2.0}


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_kills_freezes_and_torn_bytes_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    folder = started(tmp_path)
    over = threading.Event()
    crew = [Poster("ada", folder, over), OverMcp("bob", folder, over), Poster("eve", folder, over)]
    for member in crew:
        member.start()
    faults: Counter[str] = Counter()
    while faults.total() < FAULTS and not sp.state(folder).end:
        time.sleep(rng.uniform(1, 4))
        faults[fault(rng, folder)] += 1
    until_the_end(folder)
    over.set()
    for member in crew:
        member.join(60)
    acknowledged = {member.name: len(member.acknowledged) for member in crew}
    print(f"\n{dict(faults)}; acknowledged {acknowledged}, judged {sum(member.judged for member in crew)}", end="")
    assert_nothing_is_lost(folder, crew)


def started(place: Path) -> RunFolder:
    os.umask(0o002)
    place.chmod(0o2775)
    minutes = FAULTS * SECONDS_PER_FAULT / 60
    config = sp.write_config(
        place,
        streams="  a: {lora_r: 2}\n  b: {lora_r: 4}",
        steps=1_000_000,
        extra=f"  max_minutes: {minutes:.2f}\n  save_total_limit: 3",
    )
    text = config.read_text().replace("name: test\n", "name: test\nlease_seconds: 12\nretries: 99\n")
    port = sp.free_ports()
    config.write_text(
        f'{text}listen: tcp://127.0.0.1:{port}\nroles: {{validate: ["agent:ada", "agent:bob"]}}\nroles_wait_seconds: 600\n'
    )
    folder = sp.start(config, "defaults.save_steps=100")
    for name in ("ada", "bob", "eve"):
        sp.swarm("invite", name, cwd=place)
    sp.wait_for(lambda: len(sp.state(folder).held()) == 2, "two trainings", folder=folder)
    return folder


class Poster(threading.Thread):
    """An agent that posts and judges; it notes what was acknowledged."""

    def __init__(self, name: str, folder: RunFolder, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.folder, self.over = folder, over
        self.acknowledged: list[str] = []
        self.judged = 0

    def run(self) -> None:
        with Agent(self.name, self.folder.path) as agent:
            for number in range(10**9):
                if self.over.is_set():
                    return
                text = f"{self.name} {number}"
                with contextlib.suppress(UserError):
                    agent.post(text, "run", idem=text.replace(" ", "-"))
                    self.acknowledged.append(text)
                if self.name == "ada":
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
                text, number = f"{self.name} {number}", number + 1
                words_of = {"ref": "run", "text": text, "idem": text.replace(" ", "-")}
                if not (await client.call_tool("post", words_of)).is_error:
                    self.acknowledged.append(text)
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


def fault(rng: random.Random, folder: RunFolder) -> str:
    """Something that happens to the run; returns what."""
    kind = rng.choice(
        ["kill coordinator", "kill coordinator and tear the log", "freeze coordinator", "kill worker", "freeze worker"]
    )
    try:
        who = sp.coordinator_pid(folder) if "coordinator" in kind else rng.choice(sp.living_workers(folder))
    except (AssertionError, IndexError):
        resume(folder)
        return "nobody there"
    with contextlib.suppress(ProcessLookupError):
        os.kill(who, signal.SIGSTOP if "freeze" in kind else signal.SIGKILL)
        if "freeze" in kind:
            time.sleep(rng.uniform(2, 15))
            os.kill(who, signal.SIGCONT)
    if "tear" in kind:
        time.sleep(rng.uniform(0, 1))
        tear(rng, folder)
    if "kill coordinator" in kind:
        time.sleep(rng.uniform(0, 3))
        resume(folder)
    return kind


def tear(rng: random.Random, folder: RunFolder) -> None:
    """Cut the end of the log, flip a bit near it, or append bytes that are no entry; unless somebody writes to it meanwhile.

    Under the log's lock: a program that goes on writing into a file after it was replaced changes what is kept, and `verify` says so.
    """
    try:
        lock = Lock(folder.log, LogFiles(folder.log).lock, wait_seconds=2)
    except LogHeld:
        return
    try:
        _tear(rng, folder)
    finally:
        lock.release()


def _tear(rng: random.Random, folder: RunFolder) -> None:
    data = bytearray(folder.log.read_bytes())
    match rng.randrange(3):
        case 0:
            del data[-rng.randint(1, 400) :]
        case 1:
            data[-rng.randint(1, 400)] ^= 1 << rng.randrange(8)
        case _:
            data += rng.randbytes(rng.randint(1, 300))
    folder.log.write_bytes(data)


def resume(folder: RunFolder) -> None:
    if not run_is_alive(folder.log) and not sp.state(folder).end:
        sp.swarm("resume", str(folder.path), "--detach", cwd=folder.path.parents[1], check=None)


def until_the_end(folder: RunFolder) -> None:
    deadline = time.monotonic() + 600
    while not sp.state(folder).end and time.monotonic() < deadline:
        resume(folder)
        time.sleep(1)


def assert_nothing_is_lost(folder: RunFolder, crew: list[Poster]) -> None:
    state = sp.state(folder)
    assert state.end is not None and state.end.rc == 0, (SEED, state.end, sp._talk(folder.path.parents[1])[-3000:])
    bodies = Counter((e.author, e.event.body) for e in sp.entries(folder) if isinstance(e.event, ev.Post))
    for member in crew:
        assert member.acknowledged, member.name
        lost = [text for text in member.acknowledged if bodies[member.name, text] != 1]
        assert not lost, (SEED, member.name, lost)
    assert state.promoted is not None and adapter_sha256(folder.promoted) == state.promoted.sha256
    assert [fault for fault in verify(folder.log) if "torn" not in str(fault)] == []
    place = folder.path.parents[1]
    for stream in state.streams:
        rows = sp.swarm(
            "export", str(folder.path), "--what", "metrics", "--format", "csv", "--stream", stream, cwd=place
        )
        steps = [int(row.split(",")[3]) for row in rows.stdout.splitlines() if ",train," in row]
        assert steps == list(range(1, len(steps) + 1)), (SEED, stream)
    private = [path for path in folder.keys.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert private == [], "keys stay their owner's in a group's folder"
