"""The commands of README and docs/ do what the pages say: run in their order and with their arguments, in a run that has finished.

A new command in these pages is run too; one that cannot be run here stands in NOT_RUN with the reason.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import swarm_process as sp
from tests.runs.test_older_folders import unpacked
from tests.test_docs import ROOT, commands

PATIENCE_SECONDS = 100.0
NOT_RUN = {
    r"swarm (?:run|resume|stop|pause|watch|clone|add|yield|tune|research)\b": "starts, ends or shows a run that goes on: tests/runs",
    r"swarm (?:init|show|plan|check|certify|eval|ask|chat|serve|compare|merge|export-adapter)\b": "loads a base: tests/swarm/cli, tests/trainer",
    r"swarm (?:mcp|review|wait)\b": "waits for others: tests/swarm/agents",
    r"swarm notify\b": "sends to addresses that a config names: tests/swarm/artifacts",
    r".*(?:CONFIG|RUN|SEQ|wide/validate|--tokenizer)": "an example whose words depend on the run",
}
"""Commands by pattern, and why they are not run here."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The working folder: a finished run, and a table for `toon`."""
    unpacked("finished", tmp_path)
    (tmp_path / "run.json").write_text(json.dumps([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]))
    (tmp_path / "run.toon").write_text(run("toon encode run.json", tmp_path).stdout)
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    name, *words = shlex.split(command)
    return subprocess.run(
        [sys.executable, "-c", f"import sys; from {name}.cli import main; sys.exit(main())", *words],
        cwd=folder, env=sp.environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        timeout=PATIENCE_SECONDS,
    )  # fmt: skip


def run_here(page: str) -> list[str]:
    every = dict.fromkeys(commands((ROOT / page).read_text(encoding="utf-8")))
    return [command for command in every if not any(re.match(pattern, command) for pattern in NOT_RUN)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", ["README.md", "docs/log.md", "docs/toon.md", "docs/agents.md"])
def test_every_command_of_a_page_ends_with_status_0_and_says_something(page: str, place: Path) -> None:
    ran = run_here(page)
    assert len(ran) >= 4, "the page is not what this test knows"
    for command in ran:
        done = run(command, place)
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        silent = re.match(r"swarm log --kind note|toon check", command)  # nothing to say: no such entries, no faults
        assert silent or done.stdout.strip() or done.stderr.strip(), command


def test_a_command_with_a_wrong_argument_fails_here(place: Path) -> None:
    assert run("swarm log --to seventeen", place).returncode == 2
    assert run("swarm claim data/none --as ada", place).returncode != 0
