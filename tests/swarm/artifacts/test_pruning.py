"""What is pruned lies in the run folders themselves, whatever links somebody has put into them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.artifacts import pruning
from swarm.log import LogWriter
from swarm.plainfiles import FOREIGN
from swarm.rundir import RunFolder
from tests.swarm.story import Story


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished run with an attempt of its own, and beside the runs a folder of somebody else that looks alike."""
    for place in (tmp_path / "runs/mine", tmp_path / "elsewhere/theirs"):
        (place / "streams/wide/t3/checkpoint-9").mkdir(parents=True)
        (place / "prepared/abc").mkdir(parents=True)
        story = Story("wide")
        story.say("coordinator", ev.End(ref="run", rc=0))
        with LogWriter.open(RunFolder(place).log) as writer:
            writer.append([(entry.author, entry.event) for entry in story.entries])
    return tmp_path / "runs"


def pruned(runs: Path, *, whole_runs: bool = False) -> list[str]:
    found = pruning.candidates(runs, whole_runs=whole_runs, keep=0)
    pruning.remove(found)
    return sorted(str(item.path.relative_to(runs)) for item in found)


def test_attempts_and_prepared_rows_of_a_finished_run_go(runs: Path) -> None:
    assert pruned(runs) == ["mine/prepared/abc", "mine/streams/wide/t3"]


@pytest.mark.parametrize("name", ["streams", "streams/wide", "streams/wide/t3", "prepared", "prepared/abc"])
def test_a_link_in_a_run_leads_prune_nowhere(runs: Path, name: str) -> None:
    theirs = runs.parent / "elsewhere/theirs"
    link = runs / "mine" / name
    link.rename(runs.parent / "aside")
    link.symlink_to(theirs / name)
    before = sorted(theirs.rglob("*"))
    pruned(runs)
    assert sorted(theirs.rglob("*")) == before and link.is_symlink()


def test_a_link_among_the_runs_is_no_run_to_remove(runs: Path) -> None:
    (runs / "linked").symlink_to(runs.parent / "elsewhere/theirs")
    assert pruned(runs, whole_runs=True) == ["mine"]
    assert (runs.parent / "elsewhere/theirs/streams/wide/t3").is_dir()


def test_a_run_of_another_user_is_left_alone_unless_that_is_asked_for(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid():
        pytest.skip("only the superuser can give a folder away")
    for path in [runs / "mine", *(runs / "mine").rglob("*")]:
        os.chown(path, 12345, -1)
    assert pruned(runs) == []
    monkeypatch.setenv(FOREIGN, "1")
    assert pruned(runs) == ["mine/prepared/abc", "mine/streams/wide/t3"]
