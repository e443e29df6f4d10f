"""Alerts of a real coordinator: a receiver that never answers holds nothing up, and what cannot be put into the queue now is kept."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from swarm.access.client import Client
from swarm.artifacts.notices import Queue
from swarm.events import Stop
from swarm.rundir import RunFolder
from tests.swarm.places import configure, coordinator, wait_for


@pytest.fixture
def heard(tmp_path: Path) -> Path:
    return tmp_path / "heard"


@contextmanager
def dripping() -> Iterator[int]:
    """The port of a server whose answers come byte by byte and never end."""
    over = threading.Event()

    def answer(taken: socket.socket) -> None:
        with suppress(OSError), taken:
            taken.sendall(b"HTTP/1.1 200 OK\r\na: ")
            while not over.wait(0.1):
                taken.sendall(b"a")

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1]
        over.set()
        server.shutdown(socket.SHUT_RDWR)


def test_a_receiver_that_never_answers_does_not_keep_the_coordinator_from_ending(
    tmp_path: Path, unopened: RunFolder
) -> None:
    with dripping() as port:
        configure(tmp_path, unopened, f"alerts: [{{url: 'http://127.0.0.1:{port}/'}}]\n")
        with coordinator(unopened) as process, Client(unopened) as owner:
            owner.append(Stop(ref="run"))
            assert process.wait(timeout=180) == 130
    assert [one["occasion"] for _, _, one in Queue(unopened).waiting()] == ["end"], "`swarm notify` sends it"


def test_an_alert_that_cannot_be_put_into_the_queue_is_sent_when_it_can(
    tmp_path: Path, unopened: RunFolder, heard: Path
) -> None:
    configure(tmp_path, unopened, f"alerts: [{{command: [sh, -c, 'cat >> {heard}']}}]\n")
    with coordinator(unopened) as process, Client(unopened) as owner:
        wait_for(lambda: (unopened.path / "alerts" / "cursor.json").exists())
        (unopened.path / "alerts").rename(unopened.path / "away")
        (unopened.path / "alerts").write_text("in the way")
        owner.append(Stop(ref="run"))
        wait_for(lambda: "alerts: " in (unopened.path / "coordinator.log").read_text())
        (unopened.path / "alerts").unlink()
        assert process.wait(timeout=60) == 130
    assert '"occasion": "end"' in heard.read_text()
