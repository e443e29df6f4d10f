"""A coordinator's desk for tests: a real hub on a thread of its own, and real workers as processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bus.envelope import Envelope
from bus.hub import Hub
from bus.keys import Members
from swarm.messages import Assign, Heartbeat, Message, Metrics, Piece, Report

ROOT = Path(__file__).parents[2]


class Desk:
    """Hears all that workers say, sends what the test tells it to."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="desk"))  # an ipc path holds 107 bytes
        self.run_folder = self.folder / "run"
        self.run_folder.mkdir()
        self.members = Members.create(self.folder / "keys", f"ipc://{self.folder}/in", f"ipc://{self.folder}/out")
        self.heard: list[Envelope] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.open_hub()

    def open_hub(self) -> None:
        """A coordinator's next process, which knows nothing of the one before."""
        self.heard.clear()
        self.hub = self._call(self._open())

    async def _open(self) -> Hub:
        hub = Hub(self.members, allowed={"worker": frozenset({"*"})})
        await hub.start()
        self._listener = asyncio.create_task(self._listen(hub))
        return hub

    async def _listen(self, hub: Hub) -> None:
        while True:
            envelope = await hub.receive()
            self.heard.append(envelope)
            await hub.acknowledge(envelope)

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def start_worker(self, roles: str, *options: str) -> subprocess.Popen[bytes]:
        join = self.members.invite("w1", "worker")
        command = [
            sys.executable,
            "-m",
            "trainer",
            "--join",
            join,
            "--run",
            self.run_folder,
            "--roles",
            roles,
            *options,
        ]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        with (self.folder / "worker.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def tell(self, message: Message) -> None:
        self.send(message.type, message.toon())

    def send(self, kind: str, body: str) -> None:
        assert self._call(self.hub.send("w1", kind, body))

    def assign(self, **piece: Any) -> None:
        """One task."""
        self.tell(Assign(pieces=[Piece(**piece)]))

    def heartbeat(self) -> Heartbeat:
        """What the worker last said of itself."""
        return Heartbeat.read(self.hub.links()["w1"].heartbeat)

    def states(self) -> list[str]:
        """How each of the tasks stands that the worker holds."""
        return [held.state for held in self.heartbeat().holds]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 90.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{self.heartbeat()}; log: {self.log()}"
            time.sleep(0.05)

    def wait(self, wanted: Callable[[Envelope], bool], seconds: float = 90.0) -> Envelope:
        """The first message that is wanted, from the beginning."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for envelope in list(self.heard):
                if wanted(envelope):
                    return envelope
            time.sleep(0.02)
        raise AssertionError(f"heard {[one.type for one in self.heard]}; log: {self.log()}")

    def report(self, kind: str, token: int):
        """The event of this kind under this token, once it is heard."""

        def wanted(envelope: Envelope) -> bool:
            if envelope.type != "report":
                return False
            report = Report.read(envelope.body)
            return report.kind == kind and report.facts.get("tok") == token

        return Report.read(self.wait(wanted).body).event()

    def steps(self, token: int) -> list[int]:
        tables = [Metrics.read(one.body) for one in list(self.heard) if one.type == "metrics"]
        return [row.step for table in tables if table.token == token for row in table.rows]

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()

    def close_hub(self) -> None:
        self._listener.cancel()
        self._call(self.hub.close())

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.close_hub()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        shutil.rmtree(self.folder)
