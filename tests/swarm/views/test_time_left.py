"""A20: the time that a training still takes is bounded by the stops that are sure to end it."""

from __future__ import annotations

import pytest

from swarm.messages import MetricRow, Metrics
from swarm.settings import StreamSettings
from swarm.views.curves import Curves
from swarm.views.streamrows import stream_rows
from tests.swarm.story import Story, settings


@pytest.mark.parametrize(
    ("stops", "seconds"),
    [
        ({}, 2 * 98),
        ({"max_minutes": 1}, 60 - 10),
        ({"max_minutes": 60}, 2 * 98),
        ({"max_tokens": 900}, (900 - 200) / 20),
        ({"max_minutes": 1, "max_tokens": 900, "plateau_patience": 3}, (900 - 200) / 20),
        ({"max_minutes": 0.1}, 0),
    ],
    ids=str,
)
def test_a_stop_that_is_sure_to_end_a_training_bounds_its_estimate(stops: dict[str, float], seconds: float) -> None:
    """Two steps of 100 are made, two seconds each, 10 seconds after the start."""
    story = Story("one")
    story.prepared("one")
    token = story.claim("one/train", "trainer-1")
    figures = {"seconds": 10.0, "tokens": 200.0, "tokens_per_second": 20.0}
    rows = [MetricRow(step, "train", story.now + 2 * step, figures) for step in (1, 2)]
    curves = Curves()
    curves.add(Metrics.of("one", token, 100, rows))
    chosen = StreamSettings.model_validate({"base_model": "b", "datasets": [{"path": "x"}], "max_steps": 100, **stops})
    run = settings("one").model_copy(update={"streams": {"one": chosen}})
    [row] = stream_rows(story.state, run, {"one": curves}, (), story.now + 5)
    assert row.eta_seconds == pytest.approx(seconds)
