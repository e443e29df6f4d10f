"""Run folders that the version before wrote: read by every command, and a half-finished one is finished.

`tests/fixtures/{finished,halfway}.tar.xz` are real: made by commit 83a6dba with tiny-toon, two streams of two steps each, and one of
sixty steps whose processes were all killed after step 10.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.log import Log
from swarm.rundir import RunFolder
from swarm.state import State, fold
from tests.runs.swarm_process import end_everything, swarm
from toon import decode

pytestmark = pytest.mark.slow
FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from end_everything(tmp_path)


def unpacked(name: str, into: Path) -> RunFolder:
    """The run's folder; the data that its config names lies beside it, since the folder it was made in is gone."""
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as kept:
        kept.extractall(into / "runs", filter="tar")  # unlike "data" it keeps who may enter `keys`
    [path] = (into / "runs").iterdir()
    folder = RunFolder(path)
    for file, count in (("train.jsonl", 24), ("held.jsonl", 4)):
        (into / file).write_text("".join(json.dumps(row(n)) + "\n" for n in range(count)))
    folder.config.write_text(folder.config.read_text().replace("/tmp/old-runs", str(into)))
    return folder


def row(number: int) -> dict[str, object]:
    return {
        "messages": [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": f"n: {number}"}]
    }


def state_of(folder: RunFolder) -> State:
    return fold(Log(folder.log).entries())


def told(cwd: Path, *words: str) -> str:
    return swarm(*words, cwd=cwd).stdout


def test_a_finished_run_of_the_version_before_is_read_by_every_command(tmp_path: Path) -> None:
    folder = unpacked("finished", tmp_path)
    narrow, wide = state_of(folder).streams.values()
    assert (narrow.figures["eval_loss"], narrow.figures["base_eval_loss"]) == (5.865569, 6.864685)
    assert narrow.figures["exact_match"] == 0.0 == wide.figures["base_exact_match"]
    assert narrow.figures.keys() >= {"first_loss", "loss", "tokens_per_second", "peak_bytes", "seconds"}

    session = json.loads(told(tmp_path, "export", "--what", "session", "--format", "json"))
    assert [(row["stream"], row["eval_loss"], row["exact_match"]) for row in session["streams"]] == [
        ("narrow", 5.8656, 0.0),
        ("wide", 6.2428, 0.0),
    ]
    metrics = decode(told(tmp_path, "export", "--what", "metrics", "--format", "toon"))["metrics"]
    seen = [(row["stream"], row["step"], row["kind"], row["loss"], row["eval_loss"]) for row in metrics]
    assert seen[:4] == [
        ("narrow", 1, "eval", None, 6.864685),
        ("narrow", 1, "train", 5.924718, None),
        ("narrow", 2, "eval", None, 5.865569),
        ("narrow", 2, "train", 6.670553, None),
    ]
    assert "5.866" in told(tmp_path, "status") and "lowest eval_loss 5.866" in told(tmp_path, "status")
    assert "on 4 rows: held-out 5.866, base 6.865" in told(tmp_path, "log")
    assert "5.87" in told(tmp_path, "digest")
    assert "35 entries" in swarm("log", "verify", cwd=tmp_path).stderr
    [row, _] = json.loads(told(tmp_path, "lineage", "--json"))["adapters"]
    assert (row["stream"], row["score"]["eval_loss"]) == ("narrow", 5.865569)


def test_a_half_finished_run_of_the_version_before_is_finished(tmp_path: Path) -> None:
    folder = unpacked("halfway", tmp_path)
    assert "10/60" in told(tmp_path, "status")
    said = told(tmp_path, "resume", folder.name)
    assert "winner: wide, lowest eval_loss" in said

    wide = state_of(folder).streams["wide"]
    assert wide.trained is not None
    assert wide.trained.step == 60 and wide.figures["eval_loss"] < 2.3 < wide.figures["base_eval_loss"]
    with (folder.stream("wide") / "train_log.csv").open(newline="") as file:
        history = [(int(row["step"]), row["kind"], row["loss"], row["eval_loss"]) for row in csv.DictReader(file)]
    assert [step for step, kind, *_ in history if kind == "train"] == list(range(1, 61))
    assert [step for step, kind, *_ in history if kind == "eval"] == list(range(5, 61, 5))
    assert (10, "eval", "", "2.374471") in history, "a held-out loss has its own column also from the old checkpoint"
    assert wide.trained.figures["first_loss"] == 6.2654 == pytest.approx(mean(history, 3), abs=1e-4)
    metrics = json.loads(told(tmp_path, "export", "--what", "metrics", "--format", "json"))["metrics"]
    assert [row["step"] for row in metrics if row["kind"] == "train"] == list(range(1, 61))
    assert all((row["loss"] is None) == (row["kind"] == "eval") for row in metrics)


def mean(history: list[tuple[int, str, str, str]], steps: int) -> float:
    losses = [float(loss) for step, kind, loss, _ in history if kind == "train" and step <= steps]
    return sum(losses) / len(losses)
