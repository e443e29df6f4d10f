"""Latencies of messages are counted by type in a fixed amount of memory."""

from __future__ import annotations

import random

import pytest

from swarm.coordinator.latency import Latencies, Latency


def test_count_mean_and_maximum_are_exact_and_the_percentile_is_within_its_bucket() -> None:
    rng, latency = random.Random(1), Latency()
    measured = sorted(rng.lognormvariate(2, 1) for _ in range(10_000))
    for ms in measured:
        latency.add(ms)
    assert latency.count == 10_000 and latency.max_ms == measured[-1]
    assert latency.total_ms == pytest.approx(sum(measured))
    assert measured[9_899] <= latency.percentile(0.99) <= measured[9_899] * 1.1


def test_each_type_has_a_row_and_a_clock_that_is_ahead_makes_no_negative_time() -> None:
    latencies = Latencies()
    latencies.note("report", 1_000, 1_004.0)
    latencies.note("metrics", 5_000, 1_000.0)
    latencies.note("report", 1_000, 1_002.0)
    assert latencies.rows() == [
        {"type": "report", "count": 2, "mean_ms": 3.0, "p99_ms": 4.0, "max_ms": 4.0},
        {"type": "metrics", "count": 1, "mean_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0},
    ]
