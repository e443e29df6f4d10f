"""The checklists of docs/shipping.md, run as they are written there, on fewer steps and fewer tokens."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.figures import FIGURES
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/shipping.md").read_text(encoding="utf-8")
SHORTER = {
    "run": [
        "defaults.max_steps=4",
        "defaults.save_steps=4",
        "defaults.eval_rows=2",
        "defaults.datasets.0.limit=64",
        "defaults.test_datasets.0.limit=16",
    ],
    "compare": ["--max-new-tokens", "6"],
}


def checklist(title: str) -> list[str]:
    """The commands under a heading of the page."""
    part = PAGE.partition(f"### {title}\n")[2].partition("\n##")[0]
    (block,) = re.findall(r"^```\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
    return [re.split(r"\s{2,}#", line)[0] for line in block.splitlines()]


def run(command: str, folder: Path) -> str:
    program, name, *words = shlex.split(command)
    assert program == "swarm"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "swarm.cli", name, *words, *SHORTER.get(name, [])],
        cwd=folder, env=sp.environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_checklists_of_the_fast_probe_and_of_merging_run_as_they_are_written(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    trained, compared, status = (run(command, tmp_path) for command in checklist("A fast probe"))
    assert "held-out" in trained and "probe" in status
    assert "same as base" in compared
    again, *rest = checklist("Merge")
    assert again.startswith("swarm run configs/probe.yaml"), "the same run serves both here"
    merged, tuned, whole = (run(command, tmp_path) for command in rest)
    found = re.search(r"largest logit difference (\S+) \(the adapter changes logits by up to (\S+)\)", merged)
    assert found and float(found[1]) < 1e-3 * float(found[2])
    answers = [
        [row["text"] for row in json.loads(told)["answers"] if row["model"] in {"dora", "merged"}]
        for told in (tuned, whole)
    ]
    assert answers[0] == answers[1] and len(answers[0]) == 6


def test_the_checklist_of_dora_with_a_kl_term_measures_the_drift_of_both_streams(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    commands = checklist("DoRA with KL to the base")
    assert "streams.dora.kl_lambda=" in commands[0]
    trained, compared, status = (run(command, tmp_path) for command in commands)
    assert FIGURES["kl_to_base"].label in trained and FIGURES["retention_loss"].label in trained
    assert "same as base" in compared and "dora" in status
