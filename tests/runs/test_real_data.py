"""GSM8K, real rows with columns of their own: what is shown is what is supervised, and the loss falls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

DATA = Path(os.environ.get("GSM8K", "../shared/data/gsm8k")).resolve()
CONFIG = Path("configs/gsm8k.yaml").resolve()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (DATA / "train.jsonl").exists(), reason=f"no GSM8K rows in {DATA}; name their folder in GSM8K"
    ),
]
PATHS = (f"datasets.0.path={DATA}/train.jsonl", f"test_datasets.0.path={DATA}/dev.jsonl")


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_show_marks_the_answer_and_nothing_else(tmp_path: Path) -> None:
    shown = sp.swarm("show", str(CONFIG), *PATHS, "--rows", "1", cwd=tmp_path).stdout
    row = json.loads((DATA / "train.jsonl").read_text().splitlines()[0])
    supervised = shown.partition("[[")[2].partition("]]")[0]
    assert supervised.startswith(row["answer"])
    assert row["question"] not in supervised
    assert row["question"] in shown


def test_a_short_training_on_gsm8k_lowers_the_loss_of_the_answers(tmp_path: Path) -> None:
    small = (
        "max_steps=10",
        "eval_steps=10",
        "save_steps=10",
        "gradient_accumulation_steps=1",
        "datasets.0.limit=200",
        "test_datasets.0.limit=6",
        "eval_rows=1",
        "eval_max_new_tokens=8",
    )
    sp.swarm("run", str(CONFIG), *PATHS, *small, cwd=tmp_path)
    [path] = (tmp_path / "runs").iterdir()
    state = sp.state(RunFolder(path.resolve()))
    for stream in state.streams.values():
        assert stream.prepared is not None
        assert 0 < stream.prepared.supervised < stream.prepared.tokens
        assert stream.trained is not None
        assert stream.trained.figures["loss"] < stream.trained.figures["first_loss"]
        assert stream.score is not None
        assert stream.score.figures["eval_loss"] < stream.score.figures["base_eval_loss"]
