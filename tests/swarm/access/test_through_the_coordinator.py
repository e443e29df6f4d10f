"""Agents and a coordinator: the same events through the bus, also while it starts or ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.access import client as client_module
from swarm.access.client import Client, _NoAnswer
from swarm.agents.agent import Refused
from swarm.errors import UserError
from swarm.log import Log
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, coordinator, entries, kinds, opened, state, wait_for


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = opened(tmp_path)
    configure(tmp_path, made)
    yield made


def test_events_before_during_and_after_a_coordinator_are_in_one_log(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        ada.task("a")
        with coordinator(folder):
            with ada.claim("a", ttl_seconds=30) as lease:
                lease.check()
            ada.post("done with a")
        ada.post("it is gone")  # killed: the lock says so
    said = [(e.event.kind, e.via == "local") for e in entries(folder) if e.author == "ada"]
    assert said == [("task", True), ("claim", False), ("done", False), ("post", False), ("post", True)]
    assert state(folder).run is not None


@pytest.mark.parametrize("ahead_seconds", [-3600.0, 3600.0])
def test_a_lease_keeps_its_length_when_the_clock_is_set_meanwhile(unopened: RunFolder, ahead_seconds: float) -> None:
    with coordinator(unopened, ahead_seconds=ahead_seconds) as process, Agent("ada", unopened.path) as ada:
        ada.task("a")
        with ada.claim("a", ttl_seconds=30) as lease:
            lease.check()
            assert 25 < ada._left_seconds("a", lease.token, 60) <= 31
        assert abs(ada.now() - time.time() - ahead_seconds) < 5
        process.kill()
        process.wait()
        log = Log(unopened.log)
        log.read()
        assert ada.now() == pytest.approx(log.now(), abs=5)  # it is gone: the clock of who opens the log next counts
    assert state(unopened).tasks["a"].done is not None


def test_an_event_recorded_under_another_clock_is_not_repeated_when_its_answer_was_lost(
    unopened: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with coordinator(unopened, ahead_seconds=-3600.0) as process, Client(unopened, "ada") as ada:
        ada.append(ev.Post(ref="run", body="warm"))
        request = ada._request

        def recorded_and_then_cut_off(*words: Any) -> str:
            request(*words)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise _NoAnswer("its answer was lost")

        monkeypatch.setattr(ada, "_request", recorded_and_then_cut_off)
        ada.append(ev.Post(ref="run", body="once"))
    assert [e.event.body for e in entries(unopened) if e.author == "ada"] == ["warm", "once"]


def test_of_two_equal_entries_each_sender_gets_its_own(unopened: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    same = ev.Post(ref="run", body="the same words")
    with coordinator(unopened), Client(unopened, "ada") as one, Client(unopened, "ada") as other:
        one.append(ev.Post(ref="run", body="warm"))
        request, lost = other._request, []

        def lost_on_its_way(*words: Any) -> str:
            if not lost:
                lost.append(one.append(same))
                raise _NoAnswer("it never reached the coordinator")
            return request(*words)

        monkeypatch.setattr(other, "_request", lost_on_its_way)
        assert other.append(same) == lost[0] + 1
    assert [e.event.body for e in entries(unopened) if e.author == "ada"] == ["warm", same.body, same.body]


def test_a_request_that_is_sent_again_is_recorded_once(unopened: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with coordinator(unopened), Client(unopened, "ada") as ada:
        request, lost = ada._request, []

        def answered_too_late(*words: Any) -> str:
            answer = request(*words)
            if not lost:
                lost.append(answer)
                raise _NoAnswer("the answer came too late")
            return answer

        monkeypatch.setattr(ada, "_request", answered_too_late)
        monkeypatch.setattr(client_module, "recorded", lambda *_: None)  # the log that it looks at lags behind
        ada.append(ev.Post(ref="run", body="once"))
    assert [e.event.body for e in entries(unopened) if e.author == "ada"] == ["once"]


def test_a_lease_that_is_not_renewed_expires_and_a_waiting_agent_gets_the_task(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob, coordinator(folder):
        ada.task("a")
        ada.take("a", ttl_seconds=3)
        with bob.claim("a", wait_seconds=20):
            pass
    assert [e.author for e in entries(folder) if e.event.kind == "expire"] == ["coordinator"]


def test_a_refusal_comes_back_through_the_bus_with_its_reason(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob, coordinator(folder):
        ada.task("a")
        ada.take("a", ttl_seconds=30)
        with pytest.raises(Refused, match="held by ada"):
            bob.take("a", ttl_seconds=30)
        with pytest.raises(Refused, match="role agent may not append 'promote'"):
            bob.append(_promotion())
        with pytest.raises(Refused, match="role agent may not append 'end'"):
            bob.append(_end())


def _promotion() -> object:
    from swarm.events import Promote

    return Promote(ref="wide", path="promoted", sha256="a" * 64, why="mine")  # type: ignore[return-value]


def _end() -> object:
    from swarm.events import End

    return End(ref="run", rc=0)  # type: ignore[return-value]


def test_events_sent_while_the_coordinator_is_killed_are_recorded_exactly_once(folder: RunFolder) -> None:
    count = 12
    with coordinator(folder) as process, Agent("ada", folder.path) as ada:
        ada.post("warm")
        killer = threading.Timer(0.15, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        for number in range(count):
            ada.post(f"note {number}")
        killer.join()
    said = [e.event.body for e in entries(folder) if e.author == "ada"]
    assert said == ["warm", *(f"note {number}" for number in range(count))]


def test_the_links_of_a_running_coordinator_are_exported_and_without_one_refused(
    folder: RunFolder, tmp_path: Path
) -> None:
    with coordinator(folder), Agent("ada", folder.path) as ada:
        ada.post("here")
        out = sp.swarm("export", str(folder.path), "--what", "bus", "--format", "json", cwd=tmp_path).stdout
    rows = {row["name"]: row for row in json.loads(out)["bus"]}
    assert rows["ada"]["role"] == "agent"
    assert rows["ada"]["received"] >= 1
    with pytest.raises(UserError, match="needs a running coordinator"), Client(folder) as client:
        client.ask("links", timeout_seconds=0.5)


def test_the_command_line_gives_exit_status_5_with_the_reason_and_acts_under_a_name(
    folder: RunFolder, tmp_path: Path
) -> None:
    run = ("--run", str(folder.path))
    with coordinator(folder):
        sp.swarm("task", "a", "--as", "ada", *run, cwd=tmp_path)
        assert "token=" in sp.swarm("claim", "a", "--as", "ada", *run, cwd=tmp_path).stdout
        refused = sp.swarm("claim", "a", "--as", "bob", *run, cwd=tmp_path, check=5)
        assert "held by ada" in refused.stderr and "swarm post" in refused.stderr
        sp.swarm("pause", "wide", "--as", "ada", *run, cwd=tmp_path)
        sp.swarm("promote", "wide", "--as", "ada", *run, cwd=tmp_path, check=2)
    assert [e.author for e in entries(folder) if e.event.kind == "pause"] == ["ada"]
    wait_for(lambda: "pause" in kinds(folder))
