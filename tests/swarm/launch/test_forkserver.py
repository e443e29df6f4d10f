"""Real workers from a real fork server, without a coordinator: what is known of each, and who ends with whom."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.access.members import members_for_hub
from swarm.event import Role
from swarm.launch import local
from swarm.launch.child import Child, is_worker_of, process_started
from swarm.launch.forkserver import ForkServer, can_fork
from swarm.launch.layout import Layout, WorkerSpec
from swarm.rundir import RunFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

PATIENCE_SECONDS = 60.0


class Crew:
    """Workers of one run, which no coordinator will ever greet."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder(path / "run")
        self.folder.path.mkdir()
        self.members = members_for_hub(self.folder, None)
        self.forks = ForkServer(self.folder, ("prepare", "train"))
        self.forks.on_news = self.made
        self.news: list[Child] = []

    def made(self, child: Child) -> None:
        self.news.append(child)

    def start(self, name: str, *, join: Path | None = None, threads: int = 1, role: Role = "prepare") -> Child:
        spec = WorkerSpec(name, (role,), "cpu", threads)
        return local.start(spec, self.folder, join or self.members.invite(name, "worker"), self.forks)

    def log(self, name: str) -> str:
        return (self.folder.workers / f"{name}.log").read_text()

    @property
    def server(self) -> int:
        assert self.forks._process
        return self.forks._process.pid


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


async def test_a_forked_worker_is_known_by_its_folder_leads_its_group_and_its_end_has_a_reason(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    waiting, broken = crew.start("prep-1", threads=2), crew.start("prep-2", join=tmp_path / "none.json")
    assert waiting.pid == 0
    assert waiting.exit_reason() is None
    waiting.signal_group(signal.SIGKILL)  # there is nobody yet, least of all our own group
    await until(lambda: len(crew.news) == 2)
    assert crew.news == [waiting, broken]

    assert waiting.started == process_started(waiting.pid)
    assert is_worker_of(crew.folder, waiting.pid, waiting.launch)
    assert not is_worker_of(crew.folder, waiting.pid, "another")
    assert os.getsid(waiting.pid) == os.getpgid(waiting.pid) == waiting.pid
    await until(lambda: comm(waiting.pid) == "prep-1")
    assert Path(f"/proc/{waiting.pid}/fd/0").resolve() == Path(os.devnull)

    await until(broken.exit_reason)
    assert broken.exit_reason() == "exit 2"
    assert "none.json" in crew.log("prep-2")
    assert waiting.exit_reason() is None
    waiting.signal_group(signal.SIGKILL)
    await until(waiting.exit_reason)
    assert "SIGKILL" in (waiting.exit_reason() or "")
    assert waiting.exit_reason() == waiting.exit_reason()
    crew.forks.end()


async def test_a_preparer_does_not_wait_for_what_only_models_need_and_those_behind_it_have_it_all(
    tmp_path: Path,
) -> None:
    crew = Crew(tmp_path)
    preparer, trainer, late = crew.start("prep-1"), crew.start("train-1", role="train"), crew.start("prep-2")
    await until(lambda: len(crew.news) == 3)
    assert crew.news == [preparer, trainer, late]
    ticks = [int(child.started) for child in crew.news]
    assert ticks[1] - ticks[0] > 10 * max(1, ticks[2] - ticks[1]), "the imports that lie between, in 1/100 s"
    for child in crew.news:
        child.signal_group(signal.SIGKILL)
        await until(child.exit_reason)
    crew.forks.end()


async def test_a_server_that_began_before_it_was_asked_makes_the_workers(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    spec = WorkerSpec("prep-1", ("prepare",), "cpu")
    local.begin(crew.forks, Layout((replace(spec, device="gpu0", gpu_index=0),)), crew.folder)
    assert crew.forks._process is None, "nobody is to be forked"
    local.begin(crew.forks, Layout((spec,)), crew.folder)
    began = crew.server
    child = crew.start("prep-1")
    await until(lambda: crew.news)
    assert (crew.news, crew.server) == ([child], began)
    child.signal_group(signal.SIGKILL)
    await until(child.exit_reason)
    crew.forks.end()


async def test_a_server_that_nobody_asks_ends_with_the_coordinator(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    local.begin(crew.forks, Layout((WorkerSpec("prep-1", ("prepare",), "cpu"),)), crew.folder)
    started = process_started(crew.server)
    server = crew.server
    crew.forks.end()
    assert started is not None
    assert process_started(server) is None


def test_workers_collect_cycles_though_their_server_does_not(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.workers.mkdir()
    code = """if True:
        import gc, sys, pathlib
        from swarm.rundir import RunFolder
        from trainer import forkserver
        gc.disable()
        forkserver._become({"name": "w", "environment": {}, "arguments": []}, RunFolder(pathlib.Path(sys.argv[1])))
        print(gc.isenabled())
    """
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert (folder.workers / "w.log").read_text() == "True\n"


async def test_workers_outlive_their_fork_server_and_the_next_request_starts_another(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    first = crew.start("prep-1")
    await until(lambda: first.pid)
    killed = crew.server
    os.kill(killed, signal.SIGSTOP)
    never = crew.start("prep-2")
    os.kill(killed, signal.SIGKILL)
    await until(never.exit_reason)
    assert "SIGKILL" in (never.exit_reason() or "")
    assert never.pid == 0
    assert first.exit_reason() is None

    second = crew.start("prep-2")
    assert crew.server != killed
    await until(lambda: second.pid)
    assert second.launch != first.launch
    for child in (first, second):
        child.signal_group(signal.SIGTERM)
        await until(child.exit_reason)
        assert child.exit_reason() == "exit 0"
        assert "asked to leave" in crew.log(child.spec.name)
    crew.forks.end()


async def test_the_fork_server_ends_with_its_launcher(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    child = crew.start("prep-1")
    await until(lambda: child.pid)
    server = crew.forks._process
    assert server
    assert server.stdin
    server.stdin.close()
    await until(lambda: crew.forks._process is None)
    assert server.returncode == 0
    assert child.exit_reason() is None
    child.signal_group(signal.SIGKILL)


def test_workers_of_gpus_and_of_other_systems_are_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA cannot be used in a process that was forked after it was initialised."""
    assert can_fork(WorkerSpec("trainer-1", ("train",), "cpu"))
    assert not can_fork(WorkerSpec("trainer-1", ("train",), "gpu0", gpu_index=0))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not can_fork(WorkerSpec("trainer-1", ("train",), "cpu"))
