"""Curves are sorted and thin as they arrive, whatever order leases, steps and messages come in."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from swarm.artifacts.metrics import MetricsFile
from swarm.messages import MetricRow, Metrics
from swarm.views.curves import CURVE_POINTS, Curve, Curves


def table(token: int, *steps: int, kind: str = "train") -> Metrics:
    """A lease's rows; the loss tells the token and the step."""
    rows = [MetricRow(step, kind, 1000.0 + step, {"loss": token + step / 1000}) for step in steps]  # type: ignore[arg-type]
    return Metrics.of("wide", token, 200, rows)


def test_a_long_curve_stays_thin_and_ends_with_the_newest_point() -> None:
    curve = Curve()
    for step in range(1, 10_001):
        curve.add(step, step / 10)
        assert len(curve.thin()) <= CURVE_POINTS + 1
        assert curve.thin()[-1] == (step, step / 10)
    assert curve.thin()[0] == (1, 0.1) and curve.lowest == 0.1
    steps = [step for step, _ in curve.thin()[:-1]]
    assert len({b - a for a, b in itertools.pairwise(steps)}) == 1, "evenly"
    assert curve.thin() is curve.thin(), "not made again for each picture"


def test_what_is_trained_again_replaces_what_came_after_the_checkpoint() -> None:
    curves = Curves()
    curves.add(table(5, *range(1, 71)))
    assert curves.last and curves.last.step == 70
    curves.add(table(9, 51, 52))
    assert curves.last and curves.last.step == 52
    assert [step for step, _ in curves.of("loss").thin()] == list(range(1, 53))
    assert curves.of("loss").points[-1] == (52, 9.052)
    assert curves.seconds_per_step() == 1.0, "the pace of this lease alone"
    assert curves.seconds_per_step(since=1052.0) is None, "one step tells no pace"


def test_late_rows_of_an_older_lease_fill_gaps_and_replace_nothing() -> None:
    curves = Curves()
    curves.add(table(5, 1, 2, 3))
    curves.add(table(9, 51, 52))
    curves.add(table(5, 49, 50, 51, 60))
    assert curves.of("loss").points == [
        (1, 5.001),
        (2, 5.002),
        (3, 5.003),
        (49, 5.049),
        (50, 5.05),
        (51, 9.051),
        (52, 9.052),
    ]


def test_live_rows_and_the_file_that_keeps_them_give_the_same_curve(tmp_path: Path) -> None:
    chance = random.Random(7)
    for _ in range(20):
        live, path = Curves(), tmp_path / f"{chance.random()}.db"
        file, token, step = MetricsFile(path), 3, 0
        for _ in range(30):
            if chance.random() < 0.2:
                token, step = token + 1, max(0, step - chance.randrange(6))
            sent = table(token, *range(step + 1, step + 4))
            step += 3
            live.add(sent)
            file.insert([sent])
            if chance.random() < 0.3:
                live.add(sent)  # it came twice
        read = Curves()
        for found in file.tables():
            read.add(found)
        file.close()
        assert read.of("loss").points == live.of("loss").points
        assert read.last == live.last
