"""The scripted example: two agents, two tracks, one model, through real processes from start to grade."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import toon
from swarm import events as ev
from swarm.log import verify
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).parents[2] / "configs" / "agents" / "two_agents.py"


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def test_two_agents_prepare_train_disagree_settle_and_merge(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], env=sp.environment(), capture_output=True, text=True, check=False, timeout=850
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{sp._talk(tmp_path)}"
    [path] = (tmp_path / "runs").iterdir()
    folder = RunFolder(path)
    told, state = sp.entries(folder), sp.state(folder)

    handed = next(e for e in told if isinstance(e.event, ev.Hand))
    assert (handed.author, handed.event.ref) == ("ada", "data/check")
    by = {e.event.ref: e.author for e in told if isinstance(e.event, ev.Done)}
    assert (by["data/write"], by["data/check"], by["plan/training"], by["merge/grade"]) == ("ada", "bob", "bob", "bob")
    judged = next(e for e in told if isinstance(e.event, ev.Verdict))
    assert (judged.author, judged.event.ref) == ("ada", "tables/validate"), "the role that the config opens to her"
    verdict, score = state.streams["tables"].verdict, state.streams["tables"].score
    assert verdict is not None and score is not None and verdict.result == "SUCCESS"
    said, found = ([event.figures[name] for name in ("eval_loss", "base_eval_loss")] for event in (verdict, score))
    assert said == pytest.approx(found, rel=0.02), "she measured what the evaluator found after her"
    claims = {e.event.ref: e for e in told if isinstance(e.event, ev.Claim)}
    finished = {e.event.ref: e for e in told if isinstance(e.event, ev.Done)}
    assert (
        claims["plan/training"].seq < finished["data/write"].seq
        or claims["data/write"].seq < finished["plan/training"].seq
    )
    objection = next(e for e in told if isinstance(e.event, ev.Object))
    promotion = next(e for e in told if isinstance(e.event, ev.Promote))
    settled = [e.author for e in told if isinstance(e.event, ev.Approve) and objection.seq < e.seq < promotion.seq]
    assert sorted(settled) == ["ada", "bob"]
    assert state.questions == {}
    assert state.end is not None and state.end.rc == 0
    assert verify(folder.log) == []

    graded = toon.decode((folder.path / (state.tasks["merge/grade"].done.path or "")).read_text())["graded"]  # type: ignore[union-attr]
    right = sum(row["tuned"] == row["right"] for row in graded)
    assert right / len(graded) >= 0.75
    assert right > sum(row["base"] == row["right"] for row in graded)
