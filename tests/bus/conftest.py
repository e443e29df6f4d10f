"""A run folder with short socket paths, a hub on the test's loop, and real processes that end with the test."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import zmq

from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer

PROCESSES = Path(__file__).parent / "processes"
ALLOWED = {"worker": frozenset({"*"}), "viewer": frozenset({"ask"})}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not tmp_path: an ipc path holds 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="bus"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def members(folder: Path) -> Members:
    return Members.create(folder / "keys", f"ipc://{folder}/in", f"ipc://{folder}/out")


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """Keeps its sockets until the test is over, so that they are closed and not collected."""
    kept = []

    class Keeping(zmq.Context):
        def socket(self, *arguments, **options):
            kept.append(super().socket(*arguments, **options))
            return kept[-1]

    context = Keeping()
    yield context
    for socket in kept:
        socket.close(0)
    context.term()


@pytest.fixture
async def hub(members: Members) -> AsyncIterator[Hub]:
    hub = Hub(members, allowed=ALLOWED)
    await hub.start()
    yield hub
    await hub.close()


@pytest.fixture
def peer_of(members: Members) -> Iterator[Callable[..., Peer]]:
    """Makes and starts a peer with a fresh invitation."""
    peers = []

    def make(name: str = "w1", role: str = "worker", **options: object) -> Peer:
        options = {"heartbeat_seconds": 0.1, **options}
        peer = Peer(Join.load(members.invite(name, role)), **options)
        peers.append(peer)
        return peer.start()

    yield make
    for peer in peers:
        peer.close(flush_seconds=0)


class Processes:
    """Real processes of one test."""

    def __init__(self, folder: Path, members: Members) -> None:
        self.folder, self.members = folder, members
        self.running: list[subprocess.Popen[str]] = []

    def hub(self, **options: object) -> subprocess.Popen[str]:
        """A hub that writes a ledger; returns when it listens."""
        process = self._start(
            "hub_process.py", {"folder": str(self.members.folder), "ledger": str(self.ledger), **options}
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        return process

    def peer(self, name: str, **options: object) -> subprocess.Popen[str]:
        join = str(self.members.invite(name, "worker"))
        return self._start("peer_process.py", {"join": join, **options})

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def entries(self) -> list[tuple[str, str, int, int, str]]:
        """What hubs have made durable: (source, incarnation, number, after, body)."""
        if not self.ledger.exists():
            return []
        whole = self.ledger.read_text().rpartition("\n")[0].splitlines()
        return [tuple(json.loads(line)) for line in whole]

    def _start(self, script: str, options: dict[str, object]) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROCESSES / script), json.dumps(options)]
        root = Path(__file__).parents[2]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
        )
        self.running.append(process)
        return process


@pytest.fixture
def processes(folder: Path, members: Members) -> Iterator[Processes]:
    processes = Processes(folder, members)
    yield processes
    for process in processes.running:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def until() -> Callable[..., object]:
    """Waits for a condition in a coroutine. The timeout is long, because all tests share two cores."""

    async def wait(condition: Callable[[], object], seconds: float = 15.0) -> object:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s"
            await asyncio.sleep(0.01)
        return value

    return wait


@pytest.fixture
def wait_for() -> Callable[..., object]:
    """The same without a loop."""

    def wait(condition: Callable[[], object], seconds: float = 30.0) -> object:
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.01)
        return value

    return wait
