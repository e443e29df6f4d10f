"""D24, A20, C32: the line of a stream in training, as pipes, logs and `--plain` have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.cli.progress import Lines, progress_line, summary_line
from swarm.rundir import RunFolder
from swarm.views.snapshot import Snapshot, StreamRow

FIGURES = {
    "loss": 0.412, "learning_rate": 1.2e-3, "grad_norm": 0.871, "entropy": 1.25, "token_accuracy": 0.75, "tokens_per_second": 3100.0,
    "seconds": 95.0,
}  # fmt: skip


def test_the_line_of_a_training_has_all_that_is_measured_and_how_long_it_takes() -> None:
    row = StreamRow(
        "wide", "train", step=72, steps=120, figures=FIGURES, eta_seconds=61.0, curves={"loss": ((1, 2.0), (72, 0.4))}
    )
    line = progress_line(row)
    for part in (
        "wide",
        "step 72/120",
        "loss 0.412",
        "lr 1.2e-3",
        "gn 0.871",
        "ent 1.250",
        "acc 75%",
        "tok/s 3.1k",
        "elapsed 1m35",
        "eta 1m01",
    ):
        assert part in line, line


@pytest.mark.parametrize(
    ("losses", "part"),
    [
        ([2.0], "eval 2.000"),
        ([2.0, 1.5], "eval 1.500 (-25.0%)"),
        ([2.0, 1.5, 1.65], "eval 1.650 (+10.0%)"),
        ([0.0, 1.5], "eval 1.500"),
    ],
)
def test_a_held_out_loss_stands_beside_the_one_before(losses: list[float], part: str) -> None:
    """C32."""
    points = tuple(enumerate(losses))
    line = progress_line(
        StreamRow("wide", "train", step=9, steps=9, figures={"loss": 1.0}, curves={"eval_loss": points})
    )
    assert line.endswith(f"  {part}"), line


def test_a_training_that_has_ended_is_summed_up_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """D24."""
    folder = RunFolder(tmp_path)
    folder.stream("wide").mkdir(parents=True)
    measured = {
        "last_loss": 0.4123, "eval_loss": 0.45, "all_attempts_seconds": 95.04, "sequences_per_second": 12.6, "steps_per_second": 1.2634,
        "evaluations_per_second": 0.25,
    }  # fmt: skip
    (folder.stream("wide") / "time_metrics.json").write_text(json.dumps({**measured, "why": "max_steps"}))
    lines = Lines(folder=folder)
    tail = (
        "7 05:12 trained wide/train trainer-1  trained 120 steps",
        "8 05:12 trained other/train trainer-1  trained 1 step",
    )
    for _ in range(2):
        lines.show(Snapshot("demo", "", tail=tail))
    wide = "train_loss=0.4123 | eval_loss=0.4500 | train_runtime=95.0s | samples/s=12.600 | steps/s=1.263 | eval_steps/s=0.250"
    assert capsys.readouterr().err.splitlines() == [f"  {tail[0]}", f"  wide       {wide}", f"  {tail[1]}"]
    assert summary_line({"last_loss": 1.0, "steps_per_second": None}) == "train_loss=1.0000"


def test_a_stall_is_a_line_and_not_one_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for seconds in range(60, 70):
        row = StreamRow("wide", "STALLED", step=3, steps=9, why=f"no step for {seconds} s while heartbeats arrive")
        lines.show(Snapshot("demo", "", streams=(row,)))
    assert capsys.readouterr().err.count("STALLED") == 1


def test_what_is_not_measured_is_left_out_of_it() -> None:
    line = progress_line(StreamRow("wide", "train", step=1, steps=2, figures={"loss": 1.0}))
    assert "loss 1.000" in line
    assert not [part for part in ("lr", "gn", "ent", "acc", "tok/s", "elapsed", "eval", "eta") if f" {part} " in line]
