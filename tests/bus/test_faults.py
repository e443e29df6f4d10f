"""The fault matrix as far as it needs no trainer: which fault shows in which signal, after how long, and what is lost (nothing).

Seconds are printed and only bounded generously: two cores carry everything at once.
"""

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bus.keys import Members
from bus.liveness import Signals, Timeouts, judge

TIMEOUTS = Timeouts(start_seconds=30, silent_seconds=1.5, no_progress_seconds=2.5)


class Watch:
    """What a supervisor knows of one process: exit, link, progress."""

    def __init__(self, hub, process, name="w1"):
        self.hub, self.process, self.name = hub, process, name
        self.descriptor = os.pidfd_open(process.pid)
        self.began = self.moved = time.monotonic()
        self.mark = ""

    def verdict(self):
        now = time.monotonic()
        link = self.hub.links().get(self.name)
        if link is not None and link.heartbeat != self.mark:
            self.mark, self.moved = link.heartbeat, now
        gone = bool(select.select([self.descriptor], [], [], 0)[0])
        return judge(
            Signals(
                exit_code=self.process.wait() if gone else None,
                age_seconds=now - self.began,
                silent_seconds=None if link is None else now - link.last_heard,
                no_progress_seconds=None if link is None else now - self.moved,
            ),
            TIMEOUTS,
        )


async def seconds_until(watch, state, limit=20.0):
    began = time.monotonic()
    while watch.verdict().state != state:
        assert time.monotonic() - began < limit, f"{watch.verdict()} and not {state}"
        await drain(watch.hub)
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def drain(hub):
    while hub._inbox:
        await hub.acknowledge(await hub.receive())


@pytest.fixture
async def watched(hub, processes):
    """A process that is running, and what its supervisor sees."""
    watches = []

    async def start(**options):
        watch = Watch(hub, processes.peer("w1", **options))
        watches.append(watch)
        await seconds_until(watch, "running")
        return watch

    yield start
    for watch in watches:
        os.close(watch.descriptor)


WORKING = {"count": 1_000_000, "pause": 0.02}


async def test_sigkill_is_seen_by_the_exit_at_once(watched):
    watch = await watched(**WORKING)
    watch.process.kill()
    noticed = await seconds_until(watch, "dead")
    print(f"\nSIGKILL: dead after {noticed * 1000:.0f} ms ({watch.verdict().why})")
    assert "SIGKILL" in watch.verdict().why
    assert noticed < 2


async def test_the_link_of_a_killed_process_is_closed_long_before_its_silence_counts(watched, until):
    watch = await watched(**WORKING)
    began = time.monotonic()
    watch.process.kill()
    await until(lambda: not watch.hub.links()["w1"].connected)
    print(f"\nSIGKILL: link closed after {(time.monotonic() - began) * 1000:.0f} ms")
    assert time.monotonic() - began < TIMEOUTS.silent_seconds


async def test_sigstop_is_seen_by_silence_and_the_process_comes_back(watched):
    watch = await watched(**WORKING)
    watch.process.send_signal(signal.SIGSTOP)
    noticed = await seconds_until(watch, "unreachable")
    watch.process.send_signal(signal.SIGCONT)
    back = await seconds_until(watch, "running")
    print(f"\nSIGSTOP: unreachable after {noticed:.2f} s; running again {back:.2f} s after SIGCONT")


async def test_a_c_call_that_holds_the_interpreter_lock_is_seen_by_silence(watched):
    watch = await watched(count=5, then="hold-gil")
    noticed = await seconds_until(watch, "unreachable")
    print(f"\nGIL held in C: unreachable after {noticed:.2f} s")


async def test_a_stuck_main_thread_is_stalled_while_heartbeats_arrive(watched):
    watch = await watched(count=5, then="stick")
    noticed = await seconds_until(watch, "stalled")
    print(f"\nmain thread stuck: stalled after {noticed:.2f} s ({watch.verdict().why})")
    assert watch.hub.links()["w1"].connected


async def test_nothing_is_lost_while_a_process_is_stopped_in_a_burst(watched, until):
    watch = await watched(count=3000, pause=0.0005)
    got = []
    watch.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    watch.process.send_signal(signal.SIGCONT)
    while watch.process.poll() is None or watch.hub._inbox:
        if watch.hub._inbox:
            got.append(await watch.hub.receive())
            await watch.hub.acknowledge(got[-1])
        await asyncio.sleep(0)
    assert watch.hub.links()["w1"].received == 3000
    assert json.loads(watch.process.stdout.read().splitlines()[-1])["done"]


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def two_networks():
    """Two network namespaces joined by a pair of virtual cards; the near end's name to pull the plug."""
    near, far, plug = f"bus{os.getpid()}n", f"bus{os.getpid()}f", f"vb{os.getpid() % 100_000}n"
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2 for network namespaces")
    try:
        ip("netns", "add", near)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"ip netns is not available here: {error.stderr.decode().strip()}")
    ip("netns", "add", far)
    try:
        ip("link", "add", plug, "netns", near, "type", "veth", "peer", "name", "far", "netns", far)
        for space, card, address in ((near, plug, "10.9.0.1/24"), (far, "far", "10.9.0.2/24")):
            ip("-n", space, "addr", "add", address, "dev", card)
            ip("-n", space, "link", "set", card, "up")
        yield near, far, plug
    finally:
        for space in (near, far):
            ip("netns", "del", space)


def test_a_link_that_is_down_for_seconds_loses_and_repeats_nothing(two_networks, folder, wait_for):
    near, far, plug = two_networks
    members = Members.create(folder / "net", "tcp://10.9.0.1:5701", "tcp://10.9.0.1:5702")
    join = str(members.invite("w1", "worker"))
    ledger, states = folder / "ledger", folder / "states"
    root = Path(__file__).parents[2]

    def start(space, script, **options):
        path = str(Path(__file__).parent / "processes" / script)
        command = ["ip", "netns", "exec", space, sys.executable, path, json.dumps(options)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
        )

    with start(near, "hub_process.py", folder=str(members.folder), ledger=str(ledger), states=str(states)) as hub:
        assert hub.stdout.readline() == "listening\n"
        with start(far, "peer_process.py", join=join, count=350, pause=0.02) as peer:
            lines = lambda: ledger.read_text().count("\n") if ledger.exists() else 0  # noqa: E731
            wait_for(lambda: lines() > 40)
            ip("-n", near, "link", "set", plug, "down")
            down = time.monotonic()
            wait_for(lambda: "unreachable" in states.read_text())
            noticed = float(states.read_text().splitlines()[-1].split()[0]) - down
            time.sleep(max(0.0, 4 - (time.monotonic() - down)))
            before = lines()
            ip("-n", near, "link", "set", plug, "up")
            up = time.monotonic()
            wait_for(lambda: lines() > before)
            first = time.monotonic() - up
            out = peer.communicate(timeout=60)[0]
        hub.kill()
    result = json.loads(out.splitlines()[-1])
    bodies = [json.loads(line)[4] for line in ledger.read_text().splitlines()]
    print(
        f"\nlink down {up - down:.1f} s: unreachable after {noticed:.1f} s; first message {first:.2f} s after it was up; "
        f"{result['replayed']} sent again, {350 - len(set(bodies))} lost, {len(bodies) - len(set(bodies))} twice"
    )
    assert result["done"]
    assert bodies == [str(number) for number in range(1, 351)]
    assert [line.split()[1] for line in states.read_text().splitlines()][-2:] == ["unreachable", "running"]
    assert noticed < 1.5 + 3
