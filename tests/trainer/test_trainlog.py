"""A stream's history stands once on disk, whatever attempts its training took."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from swarm.messages import MetricRow
from trainer.trainlog import TrainLog, rows_in


def row(step: int, **figures: float) -> MetricRow:
    return MetricRow(step, "train", 1000.0 + step, {"loss": 2 / 3 / step, "tokens": 64 * step, **figures})


def test_rows_reach_the_disk_with_each_checkpoint_and_a_new_figure_gets_its_column(tmp_path: Path) -> None:
    rows = [row(1), row(2), MetricRow(2, "eval", 1002.5, {"eval_loss": 0.25, "bleu": 31.5}), row(3), row(4, bleu=32.0)]
    log = TrainLog(tmp_path)
    for at, each in enumerate(rows):
        log.add(each)
        if at % 2:
            log.write()
    assert list(rows_in(log.path)) == rows[:4], "the last one waits for its checkpoint"
    assert log.finish() == rows == list(rows_in(log.path))
    with log.path.open(newline="") as file:
        told = list(csv.DictReader(file))
    assert [*told[0]] == ["step", "kind", "time", "loss", "tokens", "eval_loss", "bleu"]
    assert told[0]["tokens"] == "64", "whole numbers stay whole"
    assert json.loads((tmp_path / "train_log.json").read_text())[2] == {
        "step": 2, "kind": "eval", "time": 1002.5, "eval_loss": 0.25, "bleu": 31.5,
    }  # fmt: skip


def test_a_training_that_goes_on_keeps_what_came_up_to_its_checkpoint_and_is_alone_with_its_file(
    tmp_path: Path,
) -> None:
    first = TrainLog(tmp_path)
    for step in range(1, 6):
        first.add(row(step))
    first.write()
    with first.path.open("a") as file:
        file.write("6,train,1006.0,0.1")  # it was killed while it wrote
    second = TrainLog(tmp_path, list(rows_in(first.path, 3)))
    second.add(row(4, grad_norm=0.5))
    second.write()
    first.add(row(6))
    first.write()
    first.close()
    assert second.finish() == [row(1), row(2), row(3), row(4, grad_norm=0.5)]


def test_there_is_no_history_where_nobody_wrote_one(tmp_path: Path) -> None:
    assert list(rows_in(tmp_path / "train_log.csv", 7)) == []
