"""Lane and intake against each other without sockets: whatever breaks between them, every number is taken once or declared dropped."""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.envelope import Envelope, unpack
from bus.errors import OutboxFull
from bus.intake import Intake
from bus.outbox import CONTROL_TURNS, Lane, LaneLimits, Outbox

SENT = 1_000_000 if os.environ.get("TORTURE") == "1" else 20_000


class Wire:
    """One connection after the other between a lane and a receiver; what is on the way when it breaks is lost."""

    def __init__(self, lane):
        self.lane, self.intake = lane, Intake()
        self.taken, self.under_way = [], []

    def send(self, count):
        for _ in range(count):
            data = self.lane.peek()
            if data is None:
                return
            self.lane.advance()
            self.under_way.append(data)

    def arrive(self, count):
        for data in self.under_way[:count]:
            envelope = unpack(data)
            if self.intake.classify(envelope.seq, envelope.after) == "take":
                self.taken.append(envelope.seq)
        del self.under_way[:count]

    def settle(self, seq):
        self.intake.settle_to(seq)

    def tell(self):
        self.lane.acknowledge(self.intake.settled)

    def break_and_welcome(self):
        self.under_way.clear()
        self.lane.acknowledge(self.intake.settled)
        self.lane.rewind(self.intake.last)
        self.lane.skip_to(self.intake.last)

    def new_receiver(self):
        """The receiver is killed: it knows what was settled, and nothing more."""
        settled = self.intake.settled
        self.intake = Intake(last=settled, settled=settled)
        self.taken = [seq for seq in self.taken if seq <= settled]
        self.break_and_welcome()


steps = st.lists(
    st.tuples(st.sampled_from(["add", "send", "arrive", "settle", "tell", "break", "kill"]), st.integers(1, 12)), max_size=80
)  # fmt: skip


def play(wire, script):
    for step, count in script:
        match step:
            case "add":
                for _ in range(count):
                    wire.lane.add(Envelope("fact", "x"))
            case "send":
                wire.send(count)
            case "arrive":
                wire.arrive(count)
            case "settle":
                wire.settle(wire.intake.last - count + 1)
            case "tell":
                wire.tell()
            case "break":
                wire.break_and_welcome()
            case "kill":
                wire.new_receiver()


def finish(wire):
    """No more faults: everything gets through."""
    for _ in range(10_000):
        wire.send(10)
        wire.arrive(10)
        wire.settle(wire.intake.last)
        wire.tell()
        if not len(wire.lane) and not wire.under_way:
            return
    raise AssertionError("it never came to an end")


@settings(max_examples=300, deadline=None)
@given(steps)
def test_control_is_taken_once_and_in_order_whatever_happens(script):
    wire = Wire(Lane("a", drops=False, limits=LaneLimits(flight_count=7)))
    play(wire, script)
    finish(wire)
    assert wire.taken == list(range(1, wire.lane.last + 1))


@settings(max_examples=300, deadline=None)
@given(steps)
def test_telemetry_is_taken_once_or_counted_as_dropped_by_both_ends(script):
    lane = Lane("a.t", drops=True, limits=LaneLimits(waiting_count=5, flight_count=4))
    wire = Wire(lane)
    play(wire, script)
    lane.add(Envelope("fact", "the last one"))
    finish(wire)
    assert wire.taken == sorted(set(wire.taken))
    assert len(wire.taken) + lane.dropped == lane.last
    assert wire.taken[-1] == lane.last, "the newest is never the one that is dropped"


def test_every_number_is_accounted_for_after_many_disconnections_and_kills():
    chance = random.Random(11)
    wire = Wire(Lane("a.t", drops=True, limits=LaneLimits(waiting_count=500, flight_count=100)))
    while wire.lane.last < SENT:
        step = chance.choices(["add", "send", "arrive", "settle", "tell", "break", "kill"], [9, 9, 9, 6, 6, 0.3, 0.1])[
            0
        ]
        play(wire, [(step, chance.randint(1, 60))])
    finish(wire)
    unaccounted = wire.lane.last - len(wire.taken) - wire.lane.dropped
    print(
        f"\n{wire.lane.last} numbers: taken {len(wire.taken)}, dropped {wire.lane.dropped}, replayed {wire.lane.replayed}, unaccounted {unaccounted}"
    )
    assert unaccounted == 0
    assert len(wire.taken) > SENT / 4
    assert wire.lane.dropped > 0
    assert wire.lane.replayed > 0


def test_a_full_control_lane_refuses_the_newest_and_loses_nothing():
    lane = Lane("a", drops=False, limits=LaneLimits(waiting_count=3))
    for _ in range(3):
        lane.add(Envelope("fact", "x"))
    with pytest.raises(OutboxFull):
        lane.add(Envelope("fact", "x"))
    assert (lane.last, len(lane), lane.dropped) == (3, 3, 0)


def test_bytes_bound_a_lane_as_well_as_counts():
    lane = Lane("a.t", drops=True, limits=LaneLimits(waiting_bytes=1000))
    for _ in range(100):
        lane.add(Envelope("fact", "x" * 100))
    assert lane.size_bytes <= 1000
    assert lane.dropped > 90


def test_an_unacknowledged_sender_stops_at_its_window():
    wire = Wire(Lane("a", drops=False, limits=LaneLimits(flight_count=4)))
    for _ in range(10):
        wire.lane.add(Envelope("fact", "x"))
    wire.send(10)
    assert len(wire.under_way) == 4


def test_a_number_that_comes_too_early_is_not_taken():
    intake = Intake()
    assert intake.classify(1, 0) == "take"
    assert intake.classify(3, 2) == "early"
    assert intake.classify(3, 1) == "take", "2 was declared dropped"
    assert intake.classify(2, 1) == "duplicate"
    assert (intake.gaps, intake.duplicates, intake.received) == (1, 1, 2)


def test_a_single_settlement_moves_the_acknowledgement_only_when_all_before_it_are_settled():
    intake = Intake()
    for seq in (1, 2, 3):
        intake.classify(seq, seq - 1)
    intake.settle_one(2)
    assert intake.settled == 0
    intake.settle_one(1)
    assert intake.settled == 2
    intake.settle_to(3)
    assert (intake.settled, intake.open_count) == (3, 0)


def test_control_is_sent_first_and_telemetry_is_not_starved():
    outbox, order = Outbox("a"), []
    for _ in range(30):
        outbox.telemetry.add(Envelope("metrics", "t"))
        outbox.control.add(Envelope("fact", "c"))

    def send(data):
        order.append(unpack(data).body)
        return True

    outbox.send_with(send, 27)
    assert order == (["c"] * CONTROL_TURNS + ["t"]) * 3


def test_messages_of_an_earlier_process_are_acknowledged_before_new_ones_are_sent():
    forerunner, outbox, order = Outbox("a"), Outbox("b"), []
    forerunner.control.add(Envelope("fact", "done"))
    outbox.inherit(forerunner.control.peek(), {})
    outbox.control.add(Envelope("fact", "hello"))

    def send(data):
        order.append(unpack(data).body)
        return True

    outbox.send_with(send, 9)
    assert order == ["done"], "sent is not settled"
    outbox.acknowledge("a", 1)
    outbox.send_with(send, 9)
    assert order == ["done", "hello"]


def test_a_withdrawn_message_is_a_declared_gap():
    wire = Wire(Lane("a", drops=False))
    for _ in range(3):
        wire.lane.add(Envelope("ask", "x"))
    assert wire.lane.withdraw(2)
    finish(wire)
    assert wire.taken == [1, 3]
    assert not wire.lane.withdraw(3), "it has been sent"
