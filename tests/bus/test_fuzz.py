"""Malformed frames: neither end may crash, stop serving others, or grow. TORTURE=1 sends 10^6 of them to each end."""

import asyncio
import logging
import os
import random
import resource
from pathlib import Path

import pytest
import zmq

from bus.authentication import Authenticator
from bus.envelope import Envelope, pack, unpack
from bus.errors import ProtocolError
from bus.exchange import Exchange
from bus.keys import Join
from bus.links import KEPT_LANES, KEPT_PROCESSES, Limits, Rate
from bus.peer import Peer
from bus.sockets import dealer, listener, routing_prefix

FUZZED = 1_000_000 if os.environ.get("TORTURE") == "1" else 30_000
TYPES = ["bus-hello", "bus-beat", "bus-ack", "bus-bye", "bus-welcome", "bus-resend", "bus-answer", "bus-refused", "bus-denied", "bus-tail", "fact"]  # fmt: skip
WORDS = ["hub", "-", "0", "1", "2", "7", "99", "9" * 16, "9" * 400, "a", "a.t", "b", "..", "\n", " ", ":", "a:3", "a 0", "a 0 0", "\x00", "ä", "x" * 90]  # fmt: skip


def strange_frame(chance):
    """Noise, a damaged envelope, or a well-formed one that makes no sense: the last is what finds most."""
    kind = chance.random()
    if kind < 0.1:
        return chance.randbytes(chance.randint(0, 60))
    body = chance.choice([" ", "\n", ""]).join(chance.choices(WORDS, k=chance.randint(0, 8)))
    lane, correlation = chance.choice(["", "a", "a.t", "b", f"n{chance.randint(0, 2000)}"]), chance.choice(["", "a:1"])
    seq, after = chance.randint(0, 6), chance.randint(0, 6)
    data = pack(Envelope(chance.choice(TYPES), body, incarnation=lane, seq=seq, after=after, correlation=correlation))
    if kind < 0.3:
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(damaged)
    if kind < 0.5:
        return pack(
            Envelope(
                "bus-hello",
                "\n".join(["hub - 0", *(f"{w} {chance.randint(0, 9)}" for w in "ab")]),
                incarnation=lane or "a",
            )
        )
    if kind < 0.6:
        return pack(Envelope("fact", body, incarnation=chance.choice("ab"), seq=seq, after=max(seq - 1, 0)))
    return data


def resident_bytes():
    """What this process has in memory now. (Its peak says nothing here: an earlier test may have set it.)"""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Memory:
    """The most that was added to this process since a first part of the work is done."""

    def __init__(self, count):
        self.start, self.before, self.added = count // 3, 0, 0

    def look(self, number):
        if number == self.start:
            self.before = resident_bytes()
        elif number > self.start and number % 1000 == 0:
            self.added = max(self.added, resident_bytes() - self.before)


@pytest.mark.timeout(1800)
def test_no_frame_makes_the_hub_raise_grow_or_answer_what_cannot_be_packed(members):
    keys = [Join.load(members.invite(name, "worker")).public_key for name in ("w1", "w2")]
    delivered, posted = [0], [0]

    def post(routing_id, data):
        posted[0] += 1
        unpack(data)
        return chance.choices(["sent", "full", "gone"], [90, 8, 2])[0]

    def deliver(envelope):
        delivered[0] += 1
        if chance.random() < 0.5:
            exchange.settle(envelope)
        if chance.random() < 0.3:
            exchange.answer(envelope, Envelope("bus-answer", "x", correlation=envelope.correlation))

    chance = random.Random(3)
    limits = Limits(rate=Rate(1e9, 1e12))
    exchange = Exchange(members, {"worker": frozenset({"*"})}, {}, limits, "hub0", post, deliver)
    memory = Memory(FUZZED)
    for number in range(FUZZED):
        memory.look(number)
        key = chance.choice(keys)
        exchange.take(
            key, routing_prefix(key) + bytes([chance.randint(0, 20)]) * 8, strange_frame(chance), number / 1000
        )
        if number % 50 == 0:
            exchange.acknowledge_all()
            exchange.send("w1", Envelope("command", "x"))
    assert delivered[0] > 100
    assert posted[0] > 1000
    for state in exchange.member_states.values():
        assert len(state.processes) <= KEPT_PROCESSES
        assert len(state.lanes) <= KEPT_LANES
        assert len(state.sender_of_lane) <= KEPT_LANES
    assert memory.added < 64 << 20
    assert sum(link.refused for link in exchange.links().values()) > 1000


@pytest.mark.timeout(1800)
async def test_malformed_messages_of_one_member_do_not_affect_the_others(members, hub, peer_of):
    context = zmq.Context()
    mad = dealer(context, Join.load(members.invite("mad", "worker")))
    mad.linger = 0
    mad.connect(members.endpoint)
    await asyncio.to_thread(mad.poll, 300, zmq.POLLOUT)
    chance = random.Random(4)
    count = FUZZED // 10
    memory = Memory(count)
    for number in range(count):
        memory.look(number)
        if mad.poll(0, zmq.POLLOUT):
            frame = strange_frame(chance)
            await asyncio.to_thread(mad.send_multipart, [frame] * (1 if number % 10 else 3), zmq.NOBLOCK)
        if number % 100 == 0:
            await asyncio.sleep(0.001)
        while mad.poll(0):
            mad.recv(zmq.NOBLOCK)
    sane = peer_of("w1")
    sane.send("fact", "fine")
    while (envelope := await asyncio.wait_for(hub.receive(), 10)).source != "w1":
        await hub.acknowledge(envelope)
    assert envelope.body == "fine"
    assert hub.links()["mad"].refused > 100
    assert hub.malformed > 0
    assert memory.added < 64 << 20
    mad.close(0)
    context.term()


class Wire:
    """What a connection needs of its DEALER and its monitor."""

    def __init__(self):
        self.sent = 0

    def send(self, data, flags):
        unpack(data)
        self.sent += 1

    def close(self, linger=None):
        pass

    def disable_monitor(self):
        pass

    def unregister(self, socket):
        pass


@pytest.mark.timeout(1800)
def test_no_frame_makes_a_peer_raise_grow_or_send_what_cannot_be_packed(members, caplog):
    """The connection by itself, connected anew whenever it gives the connection up; hub and publisher talk nonsense in turn."""
    caplog.set_level(logging.ERROR, "bus")  # the records of its complaints would be kept here
    peer = Peer(Join.load(members.invite("w1", "worker")))
    connection, mail, chance, wire, ended = peer._connection, peer._mail, random.Random(8), Wire(), 0
    welcome = pack(Envelope("bus-welcome", f"{peer.incarnation} 0 0\n{peer.incarnation}.t 0 0", incarnation="mad"))
    memory = Memory(FUZZED)
    for number in range(FUZZED):
        memory.look(number)
        if connection._dealer is None:
            ended += 1
            connection._dealer = connection._monitor = wire
            connection._on_hub([welcome], wire)
        if number % 5:
            connection._on_hub([strange_frame(chance)], wire)
        else:
            connection._on_publisher([chance.choice([b"events\0", b"", b"\xff\0"]), strange_frame(chance)])
        if number % 100 == 0:
            peer.send("fact", "kept", control=False)
            mail.send_with(connection._send, 8)
            mail.commands.clear()
            mail.published.clear()
    assert ended > FUZZED / 100
    assert wire.sent > FUZZED / 100
    assert memory.added < 64 << 20
    assert len(connection._counts) < 10
    connection._dealer = connection._monitor = None
    peer.close(flush_seconds=0)


def test_a_peer_survives_a_hub_that_sends_malformed_frames(members, monkeypatch):
    """The hub of this test has the right keys and no sense."""
    monkeypatch.setattr("bus.connection._LONGEST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr("bus.connection._GREETING_SECONDS", 0.1)
    context = zmq.Context()
    zap = context.socket(zmq.REP)
    zap.bind("inproc://zeromq.zap.01")
    router = listener(context, zmq.ROUTER, members)
    router.bind(members.endpoint)
    authenticator, chance = Authenticator(members, lambda: False), random.Random(6)
    peer = Peer(Join.load(members.invite("w1", "worker")), heartbeat_seconds=0.05).start()
    peer.send("fact", "kept")
    poller = zmq.Poller()
    poller.register(zap, zmq.POLLIN)
    poller.register(router, zmq.POLLIN)
    spoken = 0
    while spoken < 400:
        for socket, _ in poller.poll(100):
            if socket is zap:
                zap.send_multipart(authenticator.answer(zap.recv_multipart(copy=False)))
                continue
            routing_id, data = router.recv_multipart()
            for _ in range(5):
                router.send_multipart([routing_id, strange_frame(chance)])
                spoken += 1
            if unpack(data).type == "bus-hello" and chance.random() < 0.5:
                router.send_multipart(
                    [routing_id, pack(Envelope("bus-welcome", f"{peer.incarnation} 0 0", incarnation="mad"))]
                )
    assert peer._connection.is_alive()
    assert peer._mail.failure is None
    peer.close(flush_seconds=0)
    for socket in (zap, router):
        socket.close(0)
    context.term()


def test_the_generator_makes_many_kinds_of_malformed_frames():
    chance, understood = random.Random(1), 0
    for _ in range(1000):
        try:
            unpack(strange_frame(chance))
            understood += 1
        except ProtocolError:
            pass
    assert 500 < understood < 950, "most must get past the parser to reach what is behind it"
