"""Hub and peer through real sockets in one process: delivery, requests, commands, publishing, heartbeats, and disconnections of each."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bus.envelope import MAX_BODY_BYTES
from bus.errors import BusError, NotAllowed, ProtocolError, Refused
from bus.hub import Hub
from bus.keys import Join
from bus.outbox import LaneLimits
from bus.peer import Peer

ALLOWED = {"worker": frozenset({"*"}), "viewer": frozenset({"ask"})}


async def bodies(hub, count, *, acknowledge=True):
    """The bodies of the next messages."""
    got = []
    for _ in range(count):
        envelope = await asyncio.wait_for(hub.receive(), 15)
        got.append(envelope.body)
        if acknowledge:
            await hub.acknowledge(envelope)
    return got


async def test_every_message_arrives_once_in_order_with_the_name_that_its_key_has(hub, peer_of):
    peer = peer_of("w1")
    for number in range(500):
        peer.send("fact", str(number))
    assert await bodies(hub, 499) == [str(number) for number in range(499)]
    last = await hub.receive()
    assert (last.source, last.role, last.incarnation, last.seq) == ("w1", "worker", peer.incarnation, 500)
    assert not await asyncio.to_thread(peer.flush, 0.05)
    await hub.acknowledge(last)
    assert await asyncio.to_thread(peer.flush, 10)
    assert peer.counters.acknowledged == 500


async def test_a_request_is_answered_and_messages_received_meanwhile_are_kept(hub, peer_of):
    peer = peer_of()
    asking = asyncio.create_task(asyncio.to_thread(peer.request, "ask", "2+2"))
    question = await hub.receive()
    for number in range(3):
        assert await hub.send("w1", "command", str(number))
    await hub.answer(question, "4")
    assert (await asking).body == "4"
    assert [peer.receive(5).body for _ in range(3)] == ["0", "1", "2"]
    assert peer.receive(0) is None


async def test_two_requests_at_once_get_their_own_answers_in_any_order(hub, peer_of):
    peer = peer_of()
    first = asyncio.create_task(asyncio.to_thread(peer.request, "ask", "first"))
    one = await hub.receive()
    second = asyncio.create_task(asyncio.to_thread(peer.request, "ask", "second"))
    two = await hub.receive()
    await hub.answer(two, "to second")
    await hub.answer(one, "to first")
    assert ((await first).body, (await second).body) == ("to first", "to second")


async def test_a_refusal_carries_its_reason_and_its_exit_status(hub, peer_of):
    peer = peer_of()
    asking = asyncio.create_task(asyncio.to_thread(peer.request, "claim", "wide/train"))
    await hub.refuse(await hub.receive(), "held by eve", status=5)
    with pytest.raises(Refused) as caught:
        await asking
    assert (caught.value.reason, caught.value.status) == ("held by eve", 5)


async def test_an_answer_acknowledges_its_request_and_no_earlier_message(hub, peer_of):
    peer = peer_of()
    peer.send("fact", "not durable yet")
    asking = asyncio.create_task(asyncio.to_thread(peer.request, "ask", "?"))
    fact, question = await hub.receive(), await hub.receive()
    await hub.answer(question, "!")
    await asking
    assert not await asyncio.to_thread(peer.flush, 0.1)
    await hub.acknowledge(fact)
    assert await asyncio.to_thread(peer.flush, 10)


async def test_a_request_that_the_hub_cannot_have_is_withdrawn_at_its_timeout(members, hub, peer_of, until):
    await hub.close()
    peer = peer_of()
    with pytest.raises(TimeoutError, match="withdrawn"):
        await asyncio.to_thread(peer.request, "claim", "stale", timeout_seconds=0.2)
    peer.send("fact", "after it")
    again = Hub(members, allowed=ALLOWED)
    await again.start()
    assert await bodies(again, 1) == ["after it"]
    await again.close()


async def test_an_unanswered_request_tells_that_the_hub_may_still_carry_it_out(hub, peer_of):
    peer = peer_of()
    asking = asyncio.create_task(asyncio.to_thread(peer.request, "ask", "?", timeout_seconds=0.5))
    await hub.receive()
    with pytest.raises(TimeoutError, match="may still"):
        await asking


async def test_a_type_that_the_role_may_not_send_is_refused_and_the_next_message_arrives(hub, peer_of, until):
    viewer = peer_of("eve", "viewer")
    with pytest.raises(NotAllowed, match="may not send claim"):
        await asyncio.to_thread(viewer.request, "claim", "wide/train")
    viewer.send("claim", "again")
    asking = asyncio.create_task(asyncio.to_thread(viewer.request, "ask", "?"))
    question = await hub.receive()
    assert question.type == "ask"
    await hub.answer(question, "!")
    await asking
    assert hub.links()["eve"].refused == 2
    await until(lambda: viewer.counters.refused == 2)
    assert await asyncio.to_thread(viewer.flush, 10)


async def test_sending_to_a_member_that_is_not_connected_returns_false(hub, peer_of, until):
    assert not await hub.send("w1", "command", "x") and not await hub.reaches("w1")
    peer = peer_of()
    assert await asyncio.to_thread(peer.wait_connected, 10)
    assert await hub.reaches("w1") and await hub.send("w1", "command", "x")
    peer.close()
    await until(lambda: not hub.links()["w1"].connected)
    assert not await hub.send("w1", "command", "x") and not await hub.reaches("w1")


async def test_heartbeats_carry_the_text_of_the_peer_and_are_answered(hub, peer_of, until):
    peer = peer_of(heartbeat=lambda: "step 7\nloss 0.5")
    await until(lambda: "w1" in hub.links() and hub.links()["w1"].heartbeat == "step 7\nloss 0.5")
    before = hub.links()["w1"].last_heard
    await until(lambda: hub.links()["w1"].last_heard > before)
    assert hub.links()["w1"].connected
    assert hub.links()["w1"].incarnation == peer.incarnation
    assert peer.silent_seconds < 5


async def test_heartbeats_go_on_when_the_function_for_their_text_raises(hub, peer_of, until, caplog):
    peer_of(heartbeat=lambda: str(1 / 0))
    await until(lambda: "w1" in hub.links() and hub.links()["w1"].connected)
    before = hub.links()["w1"].last_heard
    await until(lambda: hub.links()["w1"].last_heard > before)
    assert "ZeroDivisionError" in caplog.text


async def test_a_killed_hub_shows_as_silence_with_a_reason(hub, peer_of, until):
    peer = peer_of()
    assert await asyncio.to_thread(peer.wait_connected, 10)
    assert peer.disconnect_reason == ""
    await hub.close()
    await until(lambda: not peer.connected and peer.silent_seconds > 0.5)
    assert "is the hub running" in peer.disconnect_reason


async def test_a_new_hub_gets_what_the_old_one_did_not_acknowledge_and_nothing_twice(members, hub, peer_of):
    peer = peer_of()
    for number in range(10):
        peer.send("fact", str(number))
    durable = [await hub.receive() for _ in range(4)]
    await bodies(hub, 6, acknowledge=False)
    await hub.close()
    for number in range(10, 13):
        peer.send("fact", str(number))
    again = Hub(members, allowed=ALLOWED, seen={("w1", peer.incarnation): durable[-1].seq})
    await again.start()
    assert await bodies(again, 9) == [str(number) for number in range(4, 13)]
    assert await asyncio.to_thread(peer.flush, 10)
    assert (again.links()["w1"].duplicates, again.links()["w1"].gaps) == (0, 0)
    assert peer.counters.reconnects == 1
    await again.close()


async def test_commands_sent_just_before_a_break_arrive_after_it_once(hub, peer_of, until):
    peer = peer_of()
    assert await asyncio.to_thread(peer.wait_connected, 10)
    sent = []
    for number in range(50):
        sent += [str(number)] if await hub.send("w1", "command", str(number)) else []  # refused once the break is known
        if number == 25:
            peer._connection._due["greeting"] = 0  # the next look at the clock ends this connection
            peer._connection.is_ready = False
    assert len(sent) > 25
    got = [await asyncio.to_thread(peer.receive, 10) for _ in sent]
    assert [envelope.body for envelope in got] == sent
    await until(lambda: peer.counters.reconnects == 1 and peer.connected)
    assert peer.receive(0.2) is None


async def test_published_messages_reach_the_subscribers_of_their_topic(hub, peer_of):
    some, every = peer_of("w1", subscribe=["events"]), peer_of("w2", subscribe=["*"])
    await subscribed(hub, some, every)
    for number in range(5):
        await hub.publish("events", str(number))
        await hub.publish("events-more", str(number))
    assert [some.published(5).body for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert some.published(0.1) is None
    got = [every.published(5) for _ in range(10)]
    assert [envelope.seq for envelope in got] == list(range(got[0].seq, got[0].seq + 10))
    assert {envelope.incarnation for envelope in got} == {hub.incarnation}
    assert (some.counters.missed, every.counters.missed) == (0, 0)


async def subscribed(hub, *peers):
    """Publish until everyone has got something, then empty their queues: a subscription takes a moment to travel."""
    for peer in peers:
        while peer.published(0.02) is None:
            await hub.publish("events", "warm-up")
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    for peer in peers:
        while peer.published(0.05) is not None:
            pass


async def test_a_slow_subscriber_knows_exactly_how_many_messages_it_missed(hub, peer_of, until):
    peer = peer_of(subscribe=["events"])
    await subscribed(hub, peer)
    with peer._mail.changed:  # its thread stands still at the first message
        for _ in range(8):
            for _ in range(1000):
                await hub.publish("events", "x" * 2000)
            await asyncio.sleep(0.05)
    got = 0
    while (
        await asyncio.to_thread(peer.published, 2) is not None
    ):  # the tail of the topic comes within a second of its last message
        got += 1
    assert got < 8000
    await until(lambda: peer.counters.missed == 8000 - got)


async def test_control_overtakes_telemetry_and_both_arrive(hub, peer_of):
    await hub.close()
    peer = peer_of()
    for number in range(200):
        peer.send("metrics", f"t{number}", control=False)
    for number in range(40):
        peer.send("fact", f"c{number}")
    again = Hub(hub.members, allowed=ALLOWED)
    await again.start()
    got = await bodies(again, 240)
    assert [body for body in got if body[0] == "t"] == [f"t{number}" for number in range(200)]
    assert [body for body in got if body[0] == "c"] == [f"c{number}" for number in range(40)]
    assert got.index("c39") < 50, "control goes first"
    assert got.index("t3") < 50, "and does not starve telemetry"
    await again.close()


async def test_telemetry_that_does_not_fit_is_dropped_oldest_first_counted_and_no_error(hub, peer_of, until):
    await hub.close()
    peer = peer_of(telemetry=LaneLimits(waiting_count=100))
    for number in range(250):
        peer.send("metrics", str(number), control=False)
    peer.send("fact", "still here")
    assert peer.counters.dropped == 150
    again = Hub(hub.members, allowed=ALLOWED)
    await again.start()
    got = await bodies(again, 101)
    assert sorted(got[1:], key=int) == got[1:] == [str(number) for number in range(150, 250)]
    await until(lambda: again.links()["w1"].dropped == 150)
    assert again.links()["w1"].gaps == 150
    assert await asyncio.to_thread(peer.flush, 10)
    await again.close()


async def test_two_processes_with_one_invitation_each_get_their_own_answers(members, hub, peer_of):
    one, two = peer_of("ada"), peer_of("ada")
    for peer in (one, two):
        asking = asyncio.create_task(asyncio.to_thread(peer.request, "ask", peer.incarnation))
        question = await hub.receive()
        await hub.answer(question, f"to {question.body}")
        assert (await asking).body == f"to {peer.incarnation}"


async def test_a_body_over_the_limit_fails_at_its_sender_and_the_largest_one_passes(hub, peer_of):
    peer = peer_of()
    with pytest.raises(ProtocolError, match="more than the 1048576"):
        peer.send("fact", "x" * (1 << 20))
    peer.send("fact", "x" * MAX_BODY_BYTES)
    peer.send("fact", "small")
    assert [len(body) for body in await bodies(hub, 2)] == [MAX_BODY_BYTES, 5]


async def test_a_member_over_its_budget_is_slowed_and_loses_nothing(members, peer_of):
    from bus.links import Limits, Rate

    hub = Hub(members, allowed=ALLOWED, limits=Limits(rate=Rate(400, 1 << 20)))
    await hub.start()
    peer = peer_of()
    began = time.monotonic()
    for number in range(900):
        peer.send("fact", str(number))
    assert await bodies(hub, 900) == [str(number) for number in range(900)]
    assert time.monotonic() - began > 0.9, "400 at once, 500 at 400 a second"
    assert hub.links()["w1"].refused > 0
    assert await asyncio.to_thread(peer.flush, 10)
    await hub.close()


async def test_a_second_hub_on_the_same_run_is_refused(members, hub):
    with pytest.raises(BusError, match="another hub"):
        await Hub(members, allowed=ALLOWED).start()


async def test_receive_on_a_closed_hub_raises_instead_of_waiting_for_ever(members):
    hub = Hub(members, allowed=ALLOWED)
    await hub.start()
    waiting = asyncio.create_task(hub.receive())
    await asyncio.sleep(0.05)
    await hub.close()
    with pytest.raises(BusError, match="closed"):
        await asyncio.wait_for(waiting, 5)


def test_a_peer_without_a_hub_never_blocks_and_reports_undelivered_messages(members):
    peer = Peer(Join.load(members.invite("w1", "worker"))).start()
    began = time.monotonic()
    for number in range(1000):
        peer.send("fact", str(number))
    assert time.monotonic() - began < 2
    assert peer.close(flush_seconds=0.1) is False
    with pytest.raises(BusError, match="closed"):
        peer.send("fact", "late")


def test_a_receive_without_timeout_ends_when_the_peer_is_closed(members):
    peer = Peer(Join.load(members.invite("w1", "worker"))).start()
    with ThreadPoolExecutor() as pool:
        waiting = [
            pool.submit(peer.receive),
            pool.submit(peer.published),
            pool.submit(peer.request, "ask", "?", timeout_seconds=60),
        ]
        time.sleep(0.1)
        peer.close(flush_seconds=0)
        for future in waiting:
            with pytest.raises(BusError, match="closed"):
                future.result(timeout=10)


def test_a_peer_that_was_never_started_can_be_closed(members):
    assert Peer(Join.load(members.invite("w1", "worker"))).close()
