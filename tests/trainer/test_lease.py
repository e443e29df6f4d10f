"""A lease: orders reach the holder at its boundary, and under one that was revoked nothing is reported."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from swarm.events import Drop
from swarm.messages import Message, MetricRow, Metrics, Order, Report
from trainer.errors import LeaseRevoked, LeaseStopped
from trainer.lease import Lease


class Ear:
    def __init__(self) -> None:
        self.heard: list[tuple[Message, bool]] = []
        self.lease = Lease("one/train", 7, lambda message, fact: self.heard.append((message, fact)))
        self.lease.begin()

    def order(self, what: str) -> None:
        self.lease.take(Order(ref="one/train", token=7, what=what))


def test_a_paused_holder_waits_at_the_boundary_and_says_so() -> None:
    ear = Ear()
    ear.order("pause")
    answers: list[str] = []
    holder = threading.Thread(target=lambda: answers.append(ear.lease.boundary(5)))
    holder.start()
    time.sleep(0.5)
    held, worked = ear.lease.held(), ear.lease.worked_seconds
    ear.order("resume")
    holder.join(5)
    assert answers == ["resume"]
    assert (held.state, held.ref, held.token, held.step) == ("paused", "one/train", 7, 5)
    assert ear.lease.paused_seconds > 0.4
    assert 0 < worked < ear.lease.worked_seconds < worked + ear.lease.paused_seconds, "a pause is no work"
    assert ear.lease.held().state == "working"


@pytest.mark.parametrize(("what", "error"), [("stop", LeaseStopped), ("revoke", LeaseRevoked)])
def test_stop_and_revoke_end_a_pause_and_are_not_taken_back(what: str, error: type[Exception]) -> None:
    ear = Ear()
    ear.order("pause")
    threading.Timer(0.05, ear.order, [what]).start()
    assert ear.lease.boundary(1) == what
    ear.order("resume")
    assert ear.lease.boundary(2) == what
    with pytest.raises(error):
        ear.lease.check()


def test_after_a_hand_over_everything_is_reported_under_the_new_token() -> None:
    ear = Ear()
    for token in (25, 19):  # an order that was overtaken changes nothing
        ear.lease.take(Order(ref="one/train", token=token, what="hand"))
    assert ear.lease.boundary(3) == "resume"
    ear.lease.report(Drop(ref="one/train", tok=7))
    ear.lease.figures(MetricRow(step=3, kind="train", time=0.0), 9)
    ear.lease.flush_metrics()
    report, metrics = (message for message, _ in ear.heard)
    assert isinstance(report, Report) and isinstance(metrics, Metrics)
    assert (report.facts["tok"], metrics.token, ear.lease.held().token) == (25, 25, 25)


def test_under_a_lease_that_was_revoked_nothing_is_reported() -> None:
    ear = Ear()
    ear.order("stop")
    ear.order("revoke")
    ear.lease.report(Drop(ref="one/train", tok=7))
    assert ear.heard == []


def test_a_lease_is_begun_or_withdrawn_and_never_both() -> None:
    for _ in range(200):
        lease = Lease("one/train", 7, lambda message, fact: None)
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(lambda do: do(), (lease.begin, lease.withdraw))) == [False, True]


def test_a_fact_is_kept_by_the_bus_and_figures_are_telemetry_in_shared_tables() -> None:
    ear = Ear()
    ear.lease.report(Drop(ref="one/train", tok=7))
    for step in range(1, 6):
        ear.lease.figures(MetricRow(step=step, kind="train", time=0.0), 10)
    assert ear.lease.flush_metrics()
    assert not ear.lease.flush_metrics()
    (report, fact), (metrics, flag) = ear.heard
    assert isinstance(report, Report) and fact
    assert isinstance(metrics, Metrics) and not flag
    assert [row.step for row in metrics.rows] == [1, 2, 3, 4, 5]


def test_figures_leave_by_themselves_and_not_on_the_thread_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.lease.METRICS_SECONDS", 0.01)
    monkeypatch.setattr("trainer.lease.IDLE_SECONDS", 0.05)
    heard: list[tuple[int, int]] = []

    def send(message: Message, fact: bool) -> None:
        assert isinstance(message, Metrics)
        heard.extend((row.step, threading.get_ident()) for row in message.rows)

    lease = Lease("one/train", 7, send)
    for step in range(200):
        lease.figures(MetricRow(step=step, kind="train", time=0.0), 10)
        time.sleep(0.3 if step in (50, 150) else 0.001)  # long enough for the sender to go to sleep
    lease.flush_metrics()
    assert [step for step, _ in heard] == list(range(200))
    assert threading.get_ident() not in {thread for _, thread in heard[:-20]}
