"""A member with a valid key cannot harm the others: frames too large, routing ids of others, repeated messages."""

import asyncio
import time
from pathlib import Path

import pytest

from bus.envelope import Envelope, pack, unpack
from bus.errors import BusError
from bus.hub import Hub
from bus.keys import Join, Members
from bus.peer import Peer
from tests.bus.raw import hello, raw_dealer, reply

MIB = 1 << 20


def peak_bytes(pid):
    """The most memory that a process ever had in use (proc(5), VmHWM)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_a_frame_of_200_mib_is_not_delivered_and_costs_the_hub_no_memory(processes, members, context, wait_for):
    hub = processes.hub()
    before = peak_bytes(hub.pid)
    large = raw_dealer(context, Join.load(members.invite("w1", "worker")))
    large.send(hello())
    assert large.poll(10_000)
    assert unpack(large.recv()).type == "bus-welcome"
    large.send(bytes(200 * MIB))
    time.sleep(1.5)
    peer = Peer(Join.load(members.invite("w2", "worker"))).start()
    peer.send("fact", "fine")
    assert peer.close(flush_seconds=20)
    assert [(entry[0], entry[4]) for entry in processes.entries()] == [("w2", "fine")]
    assert peak_bytes(hub.pid) - before < 16 * MIB


async def test_another_member_cannot_use_the_routing_id_of_a_connected_one(context, members, hub):
    victim, attacker = (Join.load(members.invite(name, "worker")) for name in ("w1", "w2"))
    theirs = raw_dealer(context, victim)
    theirs.send(hello())
    assert unpack(await reply(theirs)).type == "bus-welcome"
    taken = raw_dealer(context, attacker, routing_id=theirs.routing_id)
    for data in (hello(), pack(Envelope("fact", "I am w1", incarnation="raw", seq=1))):
        taken.send(data)
    assert await reply(taken, 0.5) is None
    theirs.send(pack(Envelope("fact", "I am", incarnation="raw", seq=1)))
    envelope = await asyncio.wait_for(hub.receive(), 5)
    assert (envelope.source, envelope.body) == ("w1", "I am")
    assert set(hub.links()) == {"w1"}


async def test_the_same_bytes_again_are_a_duplicate_on_the_same_connection_and_on_the_next(context, members, hub):
    join, recorded = Join.load(members.invite("w1", "worker")), pack(Envelope("fact", "once", incarnation="raw", seq=1))
    for count in (3, 2):
        dealer = raw_dealer(context, join)
        dealer.send(hello())
        assert unpack(await reply(dealer)).type == "bus-welcome"
        for _ in range(count):
            dealer.send(recorded)
        await asyncio.sleep(0.2)
    assert (await asyncio.wait_for(hub.receive(), 5)).body == "once"
    assert not hub._inbox
    assert (hub.links()["w1"].received, hub.links()["w1"].duplicates) == (1, 4)


async def test_an_outside_address_without_members_is_refused_before_anything_listens(folder):
    members = Members.create(folder / "outside", "tcp://10.9.0.1:5701", "tcp://10.9.0.1:5702")
    hub = Hub(members, allowed={})
    with pytest.raises(BusError, match="nobody is invited"):
        await hub.start()
    assert hub._readers == []


async def test_the_sockets_cannot_be_reached_by_other_users(members, hub, folder):
    """ipc files are 0755 under a usual umask (reference/coordination.md 6): their folder must be closed."""
    assert folder.stat().st_mode & 0o077 == 0
    for endpoint in (members.endpoint, members.publish_endpoint):
        path = Path(endpoint.removeprefix("ipc://"))
        assert path.is_socket()
        assert path.parent == folder


async def test_a_lane_belongs_to_its_member_even_if_another_uses_the_same_incarnation(context, members, hub):
    """Lanes belong to members: the same incarnation of two of them are two lanes."""
    dealers = [raw_dealer(context, Join.load(members.invite(name, "worker"))) for name in ("w1", "w2")]
    for number, dealer in enumerate(dealers):
        dealer.send(hello("same"))
        assert unpack(await reply(dealer)).type == "bus-welcome"
        dealer.send(pack(Envelope("fact", str(number), incarnation="same", seq=1)))
    heard = {(await asyncio.wait_for(hub.receive(), 5)).source for _ in dealers}
    assert heard == {"w1", "w2"}


def test_a_key_is_not_shown_by_what_prints_its_holder(members):
    join = Join.load(members.invite("w1", "worker"))
    peer = Peer(join)
    for shown in (repr(join), str(join), f"{vars(peer)}", repr(members)):
        assert join.secret_key not in shown
        assert members.server_secret not in shown
    assert members.server_secret not in (members.folder / "join" / "w1.json").read_text()
    peer.close(flush_seconds=0)
