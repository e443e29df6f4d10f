"""Liveness from the three signals, restarts and the stop ladder: pure, as a table."""

import pytest

from bus.budget import Budget, Rate
from bus.liveness import (
    Parked,
    Restart,
    Signals,
    Timeouts,
    after_exit,
    backoff_seconds,
    describe_exit,
    judge,
    stop_step,
)

TIMEOUTS = Timeouts(start_seconds=60, silent_seconds=10, no_progress_seconds=30)


@pytest.mark.parametrize(
    ("signals", "state", "why"),
    [
        (Signals(None, 1, None, None), "starting", "no message"),
        (Signals(None, 61, None, None), "unreachable", "no message in the 61 s"),
        (Signals(None, 100, 0.5, 2, "step 7"), "running", "step 7"),
        (Signals(None, 100, 0.5, None, "idle"), "running", "idle"),
        (Signals(None, 100, 0.5, 31), "stalled", "no step for 31 s while heartbeats arrive"),
        (Signals(None, 100, 11, 31), "unreachable", "no heartbeat for 11 s"),
        (Signals(-9, 100, 11, 31), "dead", "SIGKILL (out of memory"),
        (Signals(3, 0, None, None), "dead", "exit 3"),
        (Signals(0, 100, 0.1, 0.1), "dead", "exit 0"),
    ],
)
def test_exit_outranks_silence_and_missing_heartbeats_outrank_missing_progress(signals, state, why):
    liveness = judge(signals, TIMEOUTS)
    assert liveness.state == state
    assert why in liveness.why


def test_signals_have_names():
    assert [describe_exit(code) for code in (-15, -11, -64)] == ["SIGTERM", "SIGSEGV", "signal 64"]


def test_waits_between_restarts_double_up_to_a_limit():
    waits = [after_exit([100.0 - i for i in range(n)], 100.0, flap_count=99) for n in range(1, 9)]
    assert [wait.wait_seconds for wait in waits if isinstance(wait, Restart)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_five_exits_within_a_minute_park_it_with_the_reason_and_old_ones_do_not_count():
    assert after_exit([41.0, 50.0, 60.0, 70.0, 100.0], 100.0) == Parked("ended 5 times within 60 s; not started again")
    assert isinstance(after_exit([39.0, 50.0, 60.0, 70.0, 100.0], 100.0), Restart)


def test_jitter_takes_off_at_most_half():
    assert backoff_seconds(0, first=1, longest=8, chance=0) == 0.5
    assert backoff_seconds(2, first=1, longest=8, chance=1) == 4
    assert backoff_seconds(10_000, first=1, longest=8, chance=1) == 8


def test_stopping_goes_from_asking_to_sigterm_to_sigkill():
    assert [stop_step(s, ask_seconds=5, terminate_seconds=5) for s in (0, 4.9, 5, 9.9, 10, 1e9)] == [
        "ask", "ask", "terminate", "terminate", "kill", "kill",
    ]  # fmt: skip


def test_a_rate_limit_allows_a_burst_and_then_the_rate():
    budget = Budget(Rate(messages_per_second=10, bytes_per_second=1000), now_seconds=0.0)
    assert [budget.spend(1, 0.0) for _ in range(11)] == [True] * 10 + [False]
    assert 90 <= budget.wait_ms(1, 0.0) <= 110
    assert budget.spend(1, 0.11)
    assert not budget.spend(1, 0.11)


def test_a_burst_is_exact_on_a_machine_that_has_run_for_a_year():
    """The moments are sums of 20,000 short times; a rounding must neither refuse the last message nor allow one more."""
    for rate in (20_000, 5_000, 100, 3, 7):
        now = 3.2e7
        budget = Budget(Rate(messages_per_second=rate, bytes_per_second=1e9, burst_seconds=4), now)
        for _ in range(2):
            assert [budget.spend(1, now) for _ in range(4 * rate + 1)] == [True] * 4 * rate + [False]
            now += 4


def test_bytes_have_a_limit_of_their_own():
    budget = Budget(Rate(messages_per_second=10, bytes_per_second=1000), now_seconds=0.0)
    assert budget.spend(900, 0.0)
    assert not budget.spend(900, 0.0)
    assert budget.spend(900, 1.0)
