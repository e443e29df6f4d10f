"""Who is admitted to a hub and what a member may do, through real sockets."""

import asyncio
import json
import os
import resource
import socket as plain
import time

import msgpack
import pytest
import zmq

from bus.authentication import Authenticator
from bus.envelope import MAX_MESSAGE_BYTES, Envelope, pack, unpack
from bus.errors import BusError, NotAllowed
from bus.hub import Hub
from bus.keys import Join, Members, check_endpoint, check_name, is_loopback
from bus.links import Limits
from bus.peer import Peer
from bus.sockets import MAX_FRAME_BYTES, ZAP_DOMAIN, check_bind, listener, routing_prefix
from tests.bus.raw import hello, hello_without_waiting, raw_dealer, reply

ALLOWED = {"worker": frozenset({"*"})}


@pytest.fixture
def free_port():
    with plain.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def test_an_unlisted_key_that_knows_the_server_key_is_refused(context, members, hub):
    join = Join.load(members.invite("w1", "worker"))
    outsider = raw_dealer(context, join, keys=zmq.curve_keypair())
    hello_without_waiting(outsider)
    assert await reply(outsider, 0.7) is None
    assert hub.links() == {}
    assert hub.unauthenticated >= 1


async def test_a_wrong_server_key_and_a_client_without_keys_are_refused(context, members, hub):
    join = Join.load(members.invite("w1", "worker"))
    wrong = raw_dealer(context, join, server_key=zmq.curve_keypair()[0].decode())
    bare = context.socket(zmq.DEALER)
    bare.linger = 0
    bare.connect(join.endpoint)
    for dealer in (wrong, bare):
        hello_without_waiting(dealer)
        assert await reply(dealer, 0.5) is None
    assert hub.links() == {}


async def test_a_join_file_of_another_hub_gives_another_error_than_a_missing_hub(members, hub, until):
    join = Join.load(members.invite("w1", "worker"))
    wrong = Join(
        join.endpoint,
        join.publish_endpoint,
        zmq.curve_keypair()[0].decode(),
        "w1",
        "worker",
        join.public_key,
        join.secret_key,
    )
    peer = Peer(wrong).start()
    await until(lambda: not peer.connected and peer.disconnect_reason != "not connected yet")
    assert not peer.close(flush_seconds=0) or peer.counters.sent == 0


async def test_without_an_answer_of_the_zap_handler_even_a_listed_key_is_refused(context, members, hub):
    """libzmq fails open without ZAP_ENFORCE_DOMAIN; this is the row that a missing option would break."""
    hub._zap_reader.close()
    join = Join.load(members.invite("w1", "worker"))
    for keys in (None, zmq.curve_keypair()):
        dealer = raw_dealer(context, join, keys=keys)
        dealer.send(hello())
        assert await reply(dealer, 0.7) is None
    assert hub.links() == {}


async def test_a_server_socket_without_a_zap_handler_admits_nobody(context, members, free_port):
    """No handler was ever started in this context."""
    router = listener(context, zmq.ROUTER, members)
    router.linger = 0
    router.bind(f"tcp://127.0.0.1:{free_port}")
    join = Join.load(members.invite("w1", "worker"))
    inside = Join(
        f"tcp://127.0.0.1:{free_port}", *(getattr(join, name) for name in list(Join.__dataclass_fields__)[1:])
    )
    dealer = raw_dealer(context, inside)
    dealer.send(b"hello")
    assert await asyncio.to_thread(router.poll, 700) == 0


async def test_revocation_works_on_a_live_connection_and_on_the_next(members, hub, peer_of, until):
    peer = peer_of("w1")
    peer.send("fact", "before")
    assert (await hub.receive()).body == "before"
    other_process = Members.open(members.folder)
    other_process.revoke("w1")
    await asyncio.sleep(0.05)
    peer.send("fact", "after")
    with pytest.raises(NotAllowed):
        await asyncio.to_thread(peer.request, "ask", "?")
    await until(lambda: not hub.links()["w1"].connected)
    assert not hub._inbox
    assert not await hub.send("w1", "command", "x")
    assert "key" in peer.disconnect_reason or "invitation" in peer.disconnect_reason
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hub.receive(), 0.5)


async def test_a_revoked_subscriber_receives_nothing_more_and_the_others_go_on(members, hub, peer_of, until):
    gone, stays = peer_of("w1", subscribe=["*"]), peer_of("w2", subscribe=["*"])
    for peer in (gone, stays):
        while peer.published(0.02) is None:
            await hub.publish("events", "warm-up")
            await asyncio.sleep(0.02)
    Members.open(members.folder).revoke("w1")
    await asyncio.sleep(0.05)
    await hub.publish("events", "secret")
    await asyncio.sleep(0.3)

    def hears_again():
        envelope = stays.published(0)
        return envelope is not None and envelope.body == "open"

    deadline = time.monotonic() + 10
    while not hears_again():
        assert time.monotonic() < deadline
        await hub.publish("events", "open")
        await asyncio.sleep(0.05)
    heard = []
    while (envelope := gone.published(0.05)) is not None:
        heard.append(envelope.body)
    assert set(heard) <= {"warm-up"}


async def test_an_invitation_made_by_another_process_is_valid_at_once(members, hub):
    join = Join.load(Members.open(members.folder).invite("late", "worker"))
    peer = Peer(join).start()
    assert await asyncio.to_thread(peer.wait_connected, 10)
    await asyncio.to_thread(peer.close)


async def test_no_member_can_use_the_routing_id_of_another(context, members, hub):
    victim, attacker = (Join.load(members.invite(name, "worker")) for name in ("w1", "w2"))
    squat = raw_dealer(context, attacker, routing_id=routing_prefix(victim.public_key) + b"12345678")
    squat.send(hello())
    squat.send(pack(Envelope("fact", "I am w1", incarnation="raw", seq=1)))
    assert await reply(squat, 0.5) is None
    assert hub.links() == {}
    assert hub.unauthenticated >= 1


async def test_the_source_of_a_message_is_its_key_whatever_the_body_says(members, hub, peer_of):
    peer_of("w2").send("fact", "source: w1")
    envelope = await hub.receive()
    assert (envelope.source, envelope.role) == ("w2", "worker")


async def test_a_message_over_the_limit_closes_its_connection_and_reaches_nobody(context, members, hub):
    dealer = raw_dealer(context, Join.load(members.invite("w1", "worker")))
    dealer.send(hello())
    assert unpack(await reply(dealer)).type == "bus-welcome"
    dealer.send(os.urandom(MAX_FRAME_BYTES + 1))
    await asyncio.sleep(0.3)
    again = raw_dealer(context, Join.load(members.invite("w1", "worker")))
    again.send(hello())
    assert unpack(await reply(again)).type == "bus-welcome"
    assert hub.links()["w1"].received == 0


async def test_exactly_one_mebibyte_passes(context, members, hub):
    dealer = raw_dealer(context, Join.load(members.invite("w1", "worker")))
    dealer.send(hello())
    await reply(dealer)
    empty = len(pack(Envelope("fact", "x" * 70_000, incarnation="raw", seq=1))) - 70_000
    data = pack(Envelope("fact", "x" * (MAX_MESSAGE_BYTES - empty), incarnation="raw", seq=1))
    assert len(data) == MAX_MESSAGE_BYTES
    dealer.send(data)
    assert len((await asyncio.wait_for(hub.receive(), 5)).body) == MAX_MESSAGE_BYTES - empty


async def test_an_unknown_version_is_refused_with_the_version_of_the_hub(context, members, hub):
    dealer = raw_dealer(context, Join.load(members.invite("w1", "worker")))
    dealer.send(msgpack.packb([2, "a-shape", "of", "the", "future"]))
    denied = unpack(await reply(dealer))
    assert denied.type == "bus-denied"
    assert denied.body.startswith("version ")
    assert "speaks version 1" in denied.body
    assert hub.links()["w1"].refused == 1


async def test_a_peer_reports_that_the_hub_has_another_version(members, context, until):
    """A hub of the future, as far as this test needs one."""
    join = Join.load(members.invite("w1", "worker"))
    zap = context.socket(zmq.REP)
    zap.bind("inproc://zeromq.zap.01")
    router = listener(context, zmq.ROUTER, members)
    router.bind(members.endpoint)
    authenticator = Authenticator(members, lambda: False)
    peer = Peer(join).start()
    for _ in range(2):  # its DEALER and nothing else; the second turn is for a repeated handshake
        if await asyncio.to_thread(zap.poll, 1000):
            zap.send_multipart(authenticator.answer(zap.recv_multipart(copy=False)))
        if await asyncio.to_thread(router.poll, 1000):
            routing_id, _ = router.recv_multipart()
            router.send_multipart([routing_id, msgpack.packb([2, "bus-welcome"])])
            break
    await until(lambda: "same release" in peer.disconnect_reason)
    await asyncio.to_thread(peer.close, flush_seconds=0)


async def test_a_silent_tcp_client_is_dropped_after_the_handshake_time(folder, free_port):
    members = Members.create(folder / "tcp", f"tcp://127.0.0.1:{free_port}", f"ipc://{folder}/out2")
    hub = Hub(members, allowed=ALLOWED)
    await hub.start()
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", free_port)
    while await asyncio.wait_for(reader.read(64), 15):
        pass
    assert 3 < time.monotonic() - began < 12
    writer.close()
    await hub.close()


async def test_connections_over_the_limit_are_refused(members, peer_of, until):
    hub = Hub(members, allowed=ALLOWED, limits=Limits(connections=2))
    await hub.start()
    first, second = peer_of("w1"), peer_of("w2")
    for peer in (first, second):
        assert await asyncio.to_thread(peer.wait_connected, 10)
    third = peer_of("w3")
    assert not await asyncio.to_thread(third.wait_connected, 0.7)
    await asyncio.to_thread(first.close)
    assert await asyncio.to_thread(third.wait_connected, 15)
    await hub.close()


@pytest.mark.parametrize("seconds", [0.3])
async def test_random_bytes_on_the_tcp_port_do_not_affect_members(folder, free_port, seconds):
    members = Members.create(folder / "tcp", f"tcp://127.0.0.1:{free_port}", f"ipc://{folder}/out2")
    hub = Hub(members, allowed=ALLOWED)
    await hub.start()
    peer = Peer(Join.load(members.invite("w1", "worker"))).start()
    for garbage in (os.urandom(4000), b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f\x03" + os.urandom(500)):
        _, writer = await asyncio.open_connection("127.0.0.1", free_port)
        writer.write(garbage)
        await writer.drain()
        writer.close()
    peer.send("fact", "fine")
    assert (await asyncio.wait_for(hub.receive(), 10)).body == "fine"
    await asyncio.to_thread(peer.close, flush_seconds=0)
    await hub.close()


def test_a_join_file_is_refused_when_others_can_read_it_or_it_is_a_link(members, folder):
    path = members.invite("w1", "worker")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Join.load(path).secret_key not in repr(Join.load(path))
    link = folder / "link.json"
    link.symlink_to(path)
    with pytest.raises(BusError):
        Join.load(link)
    path.chmod(0o640)
    with pytest.raises(BusError, match="chmod 600"):
        Join.load(path)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"endpoint": 3}', "[" * 100_000, '{"members": 7}'])
def test_a_damaged_join_file_or_list_is_one_clear_error(members, folder, damage):
    for path in (members.invite("w1", "worker"), members.folder / "members.json"):
        path.write_text(damage)
        with pytest.raises(BusError):
            Join.load(path)
    with pytest.raises(BusError):
        Members.open(members.folder)


def test_an_unreadable_list_admits_nobody(members):
    key = Join.load(members.invite("w1", "worker")).public_key
    assert members.by_key(key)
    content = (members.folder / "members.json").read_bytes()
    (members.folder / "members.json").write_text("damaged")
    time.sleep(0.03)
    assert members.by_key(key) is None
    (members.folder / "members.json").write_bytes(content)
    time.sleep(0.03)
    assert members.by_key(key) is not None


def test_an_invitation_is_the_same_for_the_same_role_and_an_error_for_another(members):
    path = members.invite("w1", "worker")
    before = path.read_bytes()
    assert members.invite("w1", "worker").read_bytes() == before
    with pytest.raises(BusError, match="already invited as worker"):
        members.invite("w1", "admin")
    members.revoke("w1")
    assert not path.exists()
    with pytest.raises(BusError, match="no such member"):
        members.revoke("w2")
    assert Join.load(members.invite("w1", "admin")).public_key not in before.decode()


def test_a_full_disk_leaves_no_partial_key_file_and_admits_nobody(members):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no file can grow
    try:
        with pytest.raises(OSError, match=r"w1\.json"):
            members.invite("w1", "worker")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(members.folder.rglob(".*"))
    assert members.by_name("w1") is None
    assert Join.load(members.invite("w1", "worker")).name == "w1"


def test_a_revoked_name_is_remembered_until_it_is_invited_again(members):
    members.invite("w1", "worker")
    members.invite("w2", "worker")
    for _ in range(2):
        members.revoke("w1")
        assert Members.open(members.folder).revoked == {"w1"}
    members.revoke("w2")
    members.invite("w1", "worker")
    assert Members.open(members.folder).revoked == {"w2"}


async def test_members_find_a_hub_whose_endpoint_has_changed(members, peer_of, free_port):
    before = Join.load(members.invite("w1", "worker"))
    place = f"tcp://127.0.0.1:{free_port}"
    for _ in range(2):
        members.move(place, f"{before.publish_endpoint}-2")
    join = Join.load(members.invite("w1", "worker"))
    assert (join.endpoint, join.publish_endpoint) == (place, f"{before.publish_endpoint}-2")
    assert (join.public_key, join.secret_key) == (before.public_key, before.secret_key)
    assert Members.open(members.folder).endpoint == place
    hub = Hub(members, allowed=ALLOWED)
    await hub.start()
    assert await asyncio.to_thread(peer_of("w1").wait_connected, 5)
    await hub.close()
    for endpoint, fault in (
        (join.publish_endpoint, "both endpoints are the same"),
        ("tcp://0.0.0.0:5555", "not an endpoint"),
    ):
        with pytest.raises(BusError, match=fault):
            members.move(endpoint, join.publish_endpoint)
    assert Join.load(members.invite("w1", "worker")) == join


@pytest.mark.parametrize("name", ["", "hub", "..", "a/b", "A", "-a", ".a", "a" * 65, "a\n", "ä", "a b", "../x", 7])
def test_a_name_cannot_be_a_path_or_the_name_of_the_hub(members, name):
    with pytest.raises(BusError):
        check_name(name)
    with pytest.raises(BusError):
        members.invite(name, "worker")


@pytest.mark.parametrize(
    "endpoint",
    ["", "inproc://x", "ipc://relative", "ipc://@abstract", "tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://h:0", "tcp://h:99999", "ipc:///" + "x" * 107],
)  # fmt: skip
def test_an_endpoint_that_members_cannot_connect_to_is_refused(endpoint):
    with pytest.raises(BusError):
        check_endpoint(endpoint)


def test_a_path_of_107_bytes_is_the_longest():
    assert check_endpoint("ipc:///" + "x" * 106)
    with pytest.raises(BusError, match="107"):
        check_endpoint("ipc:///" + "x" * 107)


def test_the_hub_does_not_listen_where_others_can_enter(members, folder):
    folder.chmod(0o755)
    with pytest.raises(BusError, match="chmod 700"):
        check_bind(members.endpoint, members)
    folder.chmod(0o700)
    check_bind(members.endpoint, members)


def test_an_outside_address_is_not_bound_while_nobody_is_invited(folder):
    members = Members.create(folder / "outside", "tcp://10.9.0.1:5701", "tcp://10.9.0.1:5702")
    with pytest.raises(BusError, match="nobody is invited"):
        check_bind(members.endpoint, members)
    members.invite("w1", "worker")
    check_bind(members.endpoint, members)
    assert [is_loopback(e) for e in ("tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://host:1", "ipc:///x")] == [
        True,
        True,
        False,
        True,
    ]


def test_the_private_folder_and_its_files_are_closed_to_others(members):
    members.invite("w1", "worker")
    assert members.folder.stat().st_mode & 0o077 == 0
    for path in members.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    members.folder.chmod(0o755)
    with pytest.raises(BusError, match="chmod 700"):
        Members.open(members.folder)


def test_every_server_socket_enforces_its_zap_domain(context, members):
    for kind in (zmq.ROUTER, zmq.XPUB):
        socket = listener(context, kind, members)
        assert socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
        assert socket.zap_domain == ZAP_DOMAIN
        assert socket.curve_server
        assert socket.maxmsgsize == MAX_FRAME_BYTES
        assert socket.handshake_ivl == 5000
        assert socket.heartbeat_ivl == 0, "its timer can abort the process: see bus.sockets"
        socket.close()


def test_join_files_hold_what_the_contract_says(members):
    assert set(json.loads(members.invite("w1", "worker").read_text())) == {
        "endpoint", "publish_endpoint", "server_key", "name", "role", "public_key", "secret_key",
    }  # fmt: skip
