"""Run folders that are read-only, belong to another user or are damaged: readers can read, others get the reason, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm.agents.agent import Agent
from swarm.cli import app
from swarm.errors import UserError
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.views.test_export import fill

Look = Callable[..., subprocess.CompletedProcess[str]]
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""File modes do not bind the superuser, so these tests give its rights up."""


@pytest.fixture
def look(folder: RunFolder) -> Iterator[Look]:
    """A command about a run folder that may only be read."""
    if os.geteuid() == 0 and shutil.which(POWERLESS[0]) is None:
        pytest.skip("modes bind no superuser, and there is no setpriv")
    with Agent("ada", folder.path) as ada:
        ada.post("look @eve", "run")
    fill(folder, "wide", rows=3)

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        before = POWERLESS if os.geteuid() == 0 else ()
        return subprocess.run(
            [*before, sys.executable, "-m", "swarm.cli", *words], cwd=folder.path.parent.parent,
            env=sp.environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    paths = [folder.path.parent, folder.path, *folder.path.rglob("*")]
    for path in paths:
        path.chmod(path.stat().st_mode & ~0o222)
    yield command
    for path in paths:
        path.chmod(path.stat().st_mode | 0o200)


@pytest.mark.parametrize(
    "words",
    [
        ("status",), ("log", "--as", "eve"), ("log", "verify"), ("digest",), ("digest", "--as", "eve"), ("replay",), ("lineage",),
        ("inbox", "--as", "eve", "--peek"), ("export", "--what", "metrics", "--stream", "work"), ("export", "--what", "events"),
    ],
)  # fmt: skip
def test_a_user_who_may_only_read_can_use_the_reading_commands(
    look: Look, folder: RunFolder, words: tuple[str, ...]
) -> None:
    if "metrics" in words:
        words = words[:3]
    done = look(*words)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "look @eve" in done.stdout or words[0] not in {"log", "inbox"} or words[1:2] == ("verify",)
    if "metrics" in words:
        assert "wide,3,3,2,train" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("inbox", "--as", "eve"), "agents/eve/inbox: how far you have read cannot be kept (Permission denied); look with --peek"),
        (("post", "run", "hi"), "collaboration/lock: Permission denied; ask its owner, or name a folder of your own"),
        (("claim", "a/b"), "collaboration/lock: Permission denied; ask its owner"),
        (("stop",), "collaboration/lock: Permission denied; ask its owner"),
        (("open", "x"), "runs: no run can be made there (Permission denied); name a folder that you may write in"),
    ],
)  # fmt: skip
def test_a_user_who_may_not_write_gets_one_line(look: Look, words: tuple[str, ...], told: str) -> None:
    done = look(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("open", "x", "--runs"), ("run", "run.yaml", "--detach")])
def test_a_file_instead_of_the_runs_folder_has_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    sp.write_config(tmp_path, streams="  wide: {lora_r: 2}")
    place = "run.yaml" if words[0] == "open" else "runs_dir=run.yaml"
    told = CliRunner().invoke(app, [*words, place]).exception
    assert isinstance(told, UserError)
    assert str(told).startswith("run.yaml: no run can be made there (Not a directory); name a folder that you may")


@pytest.mark.parametrize("words", [("status",), ("replay",), ("export",), ("export", "--what", "metrics")])
@pytest.mark.parametrize("damage", [b"no database" * 999, None])
def test_damaged_metrics_are_reported_with_a_fix(
    folder: RunFolder, words: tuple[str, ...], damage: bytes | None
) -> None:
    fill(folder, "wide", rows=400)
    whole = folder.metrics.read_bytes()
    folder.metrics.write_bytes(damage or whole[:4096] + b"\xff" * 4096 + whole[8192:])
    told = CliRunner().invoke(app, [words[0], str(folder.path), *words[1:]]).exception
    assert isinstance(told, UserError), repr(told)
    assert str(told).startswith(f"{folder.metrics}: is damaged (")
    assert str(told).endswith("; move it away: its figures are lost, the log is whole")
    folder.metrics.rename(folder.path / "old.db")
    assert CliRunner().invoke(app, [words[0], str(folder.path), *words[1:]]).exit_code == 0


def test_an_invalid_signing_key_is_reported(folder: RunFolder) -> None:
    (folder.keys / "log.key").write_text("not hex")
    for words in (["log", "verify", str(folder.path)], ["post", "run", "hi", "--run", str(folder.path)]):
        told = CliRunner().invoke(app, words).exception
        assert isinstance(told, UserError)
        assert str(told).startswith(f"{folder.keys / 'log.key'}: is not a key; restore it")


def test_an_invalid_cursor_is_reported_to_readers_too(folder: RunFolder) -> None:
    place = folder.path / "agents/eve/inbox"
    place.parent.mkdir(parents=True)
    place.write_text("x" * 99)
    for more in ([], ["--peek"]):
        told = CliRunner().invoke(app, ["inbox", "--as", "eve", "--run", str(folder.path), *more]).exception
        assert isinstance(told, UserError) and f"{place}: 'xxx" in str(told)
