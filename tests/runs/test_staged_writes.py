"""SIGSTOP and SIGKILL exactly while rows are prepared and while an adapter is promoted: nothing is lost, and nothing is left half-written."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.access.client import Client
from swarm.errors import UserError
from swarm.log import LogWriter, run_is_alive, verify
from swarm.rundir import RunFolder, create
from swarm.weights import adapter_sha256
from tests.runs import swarm_process as sp
from tests.runs.stopper import POINTS, Point, put_in, stopped
from tests.swarm.artifacts.test_publish import Bench
from tests.swarm.places import configure, coordinator
from trainer import whole

TORTURE = os.environ.get("TORTURE") == "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc"),
]
PREPARING, PROMOTING = r"\.[0-9a-f]{16}\.[0-9]+-[0-9]+", r"\.promoted\.staged"
ALL = list(product(POINTS, ("kill", "freeze")))


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def promotions(folder: RunFolder) -> list[ev.Promote]:
    return [entry.event for entry in sp.entries(folder) if isinstance(entry.event, ev.Promote)]


def is_whole(folder: RunFolder) -> None:
    """One promotion is recorded, its weights are there, and nothing else of it."""
    [promoted] = promotions(folder)
    assert adapter_sha256(folder.promoted) == promoted.sha256
    assert not list(folder.path.glob(".promoted*"))
    assert verify(folder.log) == []


@pytest.mark.parametrize(("point", "how"), ALL if TORTURE else [(6, "kill"), ("rename", "freeze")])
def test_a_coordinator_that_is_killed_or_frozen_in_promoting_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point, how: str
) -> None:
    folder = create(tmp_path / "runs", "work")
    configure(tmp_path, folder)
    bench = Bench(folder.path)
    bench.train("weights")
    bench.story.judged("wide")
    published = bench.publish()
    bench.story.say("coordinator", published)
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in bench.story.entries])
    put_in(tmp_path, monkeypatch, {"promoting": (PROMOTING, point)})

    wished = ev.Promote(ref="wide", path=published.path, sha256=published.sha256, why="best", force=True, idem="once")

    def promote() -> None:
        with contextlib.suppress(UserError), Client(folder) as owner:
            owner.append(wished, timeout_seconds=5)

    with coordinator(folder) as process:
        asking = threading.Thread(target=promote)
        asking.start()
        assert stopped(tmp_path, "promoting", folder) == process.pid
        assert promotions(folder) == []
        if how == "kill":
            process.kill()
            process.wait()
        else:
            os.kill(process.pid, signal.SIGCONT)
        asking.join(90)
    if how == "kill":
        with coordinator(folder):
            promote()  # recorded once, whoever carried it out
    is_whole(folder)


@pytest.mark.skipif(not TORTURE, reason="`make torture` runs it")
@pytest.mark.parametrize(("point", "how"), ALL)
def test_a_worker_in_preparing_and_then_the_coordinator_in_promoting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: Point, how: str
) -> None:
    """The worker is killed, or frozen past its lease; the coordinator is killed where the worker was frozen, and the other way round."""
    put_in(tmp_path, monkeypatch, {"preparing": (PREPARING, point), "promoting": (PROMOTING, point)})
    config = sp.write_config(tmp_path, streams="  only: {lora_r: 2}", steps=4)
    text = config.read_text().replace("name: test\n", "name: test\nlease_seconds: 10\n")
    config.write_text(f"{text}promotion: {{must_beat: nothing}}\n")
    folder = sp.start(config)
    worker = stopped(tmp_path, "preparing", folder)
    if how == "kill":
        os.kill(worker, signal.SIGKILL)
    expired = lambda: any(isinstance(entry.event, ev.Expire) for entry in sp.entries(folder))  # noqa: E731
    sp.wait_for(expired, "the lease's end", folder=folder)
    sp.wait_for(lambda: sp.state(folder).streams["only"].prepared, "the rows", folder=folder)

    pid = stopped(tmp_path, "promoting", folder)
    os.kill(pid, signal.SIGKILL if how == "freeze" else signal.SIGCONT)
    if how == "freeze":
        sp.wait_for(lambda: not run_is_alive(folder.log), "its end")
        sp.swarm("resume", str(folder.path), "--detach", cwd=tmp_path)
    state = sp.wait_for_end(folder)
    assert state.end is not None and state.end.rc == 0, state.end
    prepared = state.streams["only"].prepared
    assert prepared is not None
    whole.verify(folder.path / prepared.path, prepared.sha256)
    sp.wait_for(lambda: not run_is_alive(folder.log), "the coordinator's end")
    is_whole(folder)
