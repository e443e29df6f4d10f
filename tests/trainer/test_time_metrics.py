"""A18-A20: what a training measures beside its loss, on both engines, and the file that sums a training up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.data.prepared import TRAIN, read_rows

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


def trained(bench: Bench, given: StreamSettings) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The figures of each step, and the summing up."""
    bench.trained(given)
    rows = [dict(row.figures) for row in bench.metric_rows() if row.kind == "train"]
    return rows, json.loads((bench.place.stream_folder("one") / "time_metrics.json").read_text())


def test_time_metrics_count_what_was_really_seen(bench: Bench, settings: Make) -> None:
    figures, summed = trained(bench, settings(max_steps=4, lora_r=4))
    (folder,) = (bench.place.run_folder / "prepared").iterdir()
    rows = list(read_rows(folder / TRAIN))
    assert (summed["rows"], summed["data_tokens"]) == (len(rows), sum(len(row.ids) for row in rows))
    assert summed["data_supervised_tokens"] == sum(row.supervised for row in rows)
    assert (summed["steps"], summed["tokens"]) == (4, figures[-1]["tokens"])
    assert summed["steps_per_second"] == pytest.approx(
        4 / summed["all_attempts_seconds"], rel=0.05
    )  # it is stated in milliseconds
    assert summed["sequences_per_second"] == pytest.approx(4 * summed["steps_per_second"], rel=0.01, abs=0.01)
    assert "evaluations" not in summed
    assert summed["loss_delta"] == pytest.approx(summed["last_loss"] - summed["first_loss"], abs=1e-4)
    assert summed["loss_delta"] < 0
    assert (summed["adapter"], summed["lora_r"], summed["use_dora"], summed["why"]) == ("lora", 4, False, "max_steps")
