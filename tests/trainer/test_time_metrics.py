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


def trained(bench: Bench, given: StreamSettings, **more: Any) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The figures of each step, and the summing up."""
    bench.trained(given, **more)
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
    share = summed["loss_delta"] / summed["first_loss"]
    assert summed["loss_delta_percent"] == pytest.approx(100 * share, abs=0.02)
    assert min(summed["load_seconds"], summed["loop_seconds"], summed["save_seconds"]) > 0
    assert (summed["adapter"], summed["lora_r"], summed["use_dora"], summed["why"]) == ("lora", 4, False, "max_steps")
    assert (summed["learning_rate"], summed["sequence_len"], summed["seed"]) == (5e-3, 64, 0)


def test_the_newest_held_out_loss_and_what_evaluations_take_stand_in_it(bench: Bench, settings: Make) -> None:
    """D24."""
    _, summed = trained(bench, settings(max_steps=4, eval_steps=2))
    measured = [row.figures["eval_loss"] for row in bench.metric_rows() if row.kind == "eval"]
    assert (summed["evaluations"], summed["eval_loss"]) == (2, measured[-1])
    assert summed["evaluations_per_second"] == pytest.approx(2 / summed["eval_seconds"], rel=0.05)


@pytest.mark.parametrize("engine", ["shared", "trl"])
def test_tokens_that_the_loss_counted_are_counted_over_all_attempts(bench: Bench, settings: Make, engine: str) -> None:
    """A19."""
    figures, summed = trained(bench, settings(max_steps=4, engine=engine))
    counted = [row["supervised_tokens"] for row in figures]
    assert counted == sorted(counted) and 0 < counted[0] < figures[0]["tokens"]
    assert summed["supervised_tokens"] == counted[-1]
    prepared, path = next(iter(bench.prepared)), "streams/one/t2/checkpoint-2"
    bench.do("train", settings(max_steps=4, engine=engine), prepared=prepared, resume_from=[path])
    again = [row.figures["supervised_tokens"] for row in bench.metric_rows() if row.kind == "train"]
    assert again == counted[2:]
