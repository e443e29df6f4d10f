"""A coordinator that stood still, or whose machine's clock was set, blames nobody for the silence."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from pathlib import Path

import pytest

from bus.keys import Join
from bus.peer import Peer
from swarm import events as ev
from swarm.access.client import Client
from swarm.coordinator.effects import Effects
from swarm.coordinator.pulse import LATE_SECONDS, Pulse
from swarm.launch.layout import WorkerSpec
from swarm.log import LogWriter
from swarm.log import clock as clock_module
from swarm.log.clock import seconds_since_boot, set_forward_seconds
from swarm.messages import Assign
from swarm.policy.schedule import decide
from swarm.rundir import LogFiles, RunFolder
from swarm.state import fold
from tests.swarm.coordinator.test_reception import desk
from tests.swarm.story import Story, settings

HOUR = 3600.0
HUB_SILENCE_SECONDS = 3.0
"""A peer ends its connection after this, and connects anew."""


def test_a_pulse_tells_a_gap_in_its_own_time_and_nothing_else() -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    for _ in range(20):
        now[0] += LATE_SECONDS - 0.1
        pulse.look()
    assert pulse.missed_seconds() == 0.0
    before = pulse.awake_since
    now[0] += HOUR
    assert pulse.missed_seconds() == HOUR
    assert pulse.missed_seconds() == 0.0, "told once"
    assert pulse.awake_since > before


async def test_a_loop_that_is_held_up_is_noticed_by_the_beat() -> None:
    pulse = Pulse()
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0.6)
    assert pulse.missed_seconds() == 0.0
    time.sleep(LATE_SECONDS + 0.5)
    await asyncio.sleep(0.3)
    beating.cancel()
    assert LATE_SECONDS < pulse.missed_seconds() < LATE_SECONDS + 2


def test_every_lease_and_every_wait_lasts_longer_by_what_was_missed() -> None:
    story = Story("wide")
    story.claim("wide/prepare", "ada", ttl=30)
    before = story.state
    story.say("coordinator", ev.Extend(ref="run", seconds=HOUR, why="the coordinator stood still"))
    lease, old = story.state.tasks["wide/prepare"].lease, before.tasks["wide/prepare"].lease
    assert lease is not None and old is not None
    assert (lease.until - old.until, lease.began - old.began) == (HOUR, HOUR)
    assert story.state.streams["wide"].turn_since - before.streams["wide"].turn_since == HOUR


def test_a_clock_that_was_set_forward_is_detected_until_the_machine_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "COLLABORATION.md"
    LogFiles(log).folder.mkdir()
    now = time.time()
    assert set_forward_seconds(log, now) == 0.0, "the first writer has nothing to compare with"
    assert set_forward_seconds(log, now + 1) == 0.0
    assert set_forward_seconds(log, now + HOUR) == pytest.approx(HOUR, abs=1)
    assert set_forward_seconds(log, now + HOUR) == 0.0, "told once"
    assert set_forward_seconds(log, now) == 0.0, "one that was set back is another matter"
    LogFiles(log).clock.write_text(json.dumps({"boot": "another", "ahead": now - seconds_since_boot() - HOUR}))
    assert set_forward_seconds(log, now) == 0.0
    for strange in ("", "[]", "{", '{"boot": 1}', '"x"' * 1000):
        LogFiles(log).clock.write_text(strange)
        assert set_forward_seconds(log, now) == 0.0
    monkeypatch.setattr(clock_module, "BOOT_ID", tmp_path / "nothing")
    assert set_forward_seconds(log, now + HOUR) == set_forward_seconds(log, now + 2 * HOUR) == 0.0


def test_without_a_coordinator_a_clock_an_hour_ahead_ends_nobodys_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    with Client(folder, "ada") as ada:
        ada.append(ev.Task(ref="look"))
        token = ada.append(ev.Claim(ref="look", ttl=600))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + HOUR)
    monkeypatch.setattr(
        LogWriter.open.__func__, "__kwdefaults__", {**LogWriter.open.__kwdefaults__, "clock": time.time}
    )
    with Client(folder, "bob") as bob:
        bob.append(ev.Post(ref="run", body="what time is it?"))
    with Client(folder, "ada") as ada:
        ada.append(ev.Renew(ref="look", tok=token, ttl=600))
    from swarm.log import Log

    entries = list(Log(folder.log).entries())
    [extended] = [e.event for e in entries if isinstance(e.event, ev.Extend)]
    assert extended.seconds == pytest.approx(HOUR, abs=2)
    lease = fold(entries).tasks["look"].lease
    assert lease is not None and lease.token == token


async def test_a_worker_that_gave_its_connection_up_during_a_freeze_gets_its_task_once_it_is_back(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir(mode=0o700)
    async with desk(folder, Story("wide"), WorkerSpec("prep-1", ("prepare",), "cpu")) as reception:
        record, hub, crew = reception.record, reception.hub, reception.crew

        async def decided() -> list[str]:
            for command in decide(record.state, crew.view(), record.clock(), settings("wide")):
                await Effects(record, hub, crew, folder).do(command)
            return [entry.event.kind for entry in record.writer.log.entries(2)]

        join = Join.load(hub.members.invite("prep-1", "worker"))
        with closing(Peer(join, heartbeat_seconds=0.05).start()) as peer:
            while not hub.links():
                await asyncio.sleep(0.05)
            crew._members["prep-1"].state = "ready"
            crew.watch(hub.links(), record.state)
            time.sleep(HUB_SILENCE_SECONDS + 1)  # nothing is read, as if this process were frozen
            assert hub.links()["prep-1"].connected, "nobody has noticed yet"
            assert await decided() == []
            while not await decided():
                await asyncio.sleep(0.05)
                crew.watch(hub.links(), record.state)
            assert await decided() == ["claim"]
            assigned = await asyncio.to_thread(peer.receive, 5.0)
        assert assigned is not None and Assign.read(assigned.body).pieces[0].ref == "wide/prepare"
