"""`swarm compare` and its like as people type them: on the embedded base, in a folder without any run and in one with a finished run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import toon
from tests.trainer import tiny
from trainer.bases import EMBEDDED_FOLDER

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def swarm(*words: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "swarm.cli", *words]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_adapter(EMBEDDED_FOLDER, tmp_path_factory.mktemp("adapters") / "tuned", std=0.3)


def test_base_and_adapter_answer_side_by_side_on_screen_and_on_a_page(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("convert a=1\nname: <Ada>\n")
    done = swarm(
        "compare", str(adapter), "--prompts", "asked.txt", "--max-new-tokens", "8", "--html", "page.html", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "base tiny-toon; greedy; at most 8 tokens"
    assert any("1. convert a=1" in line for line in lines)
    assert any("tiny-toon" in line and "tuned" in line for line in lines)
    assert lines[-3].split()[:2] == ["model", "answers"]
    assert max(map(len, lines)) <= 100
    assert "name: &lt;Ada&gt;" in (tmp_path / "page.html").read_text()
    assert done.stderr == "wrote page.html\n"


def test_a_comparison_as_data_has_every_answer_with_its_figures(adapter: Path, tmp_path: Path) -> None:
    asked = [
        "compare",
        "tiny-toon",
        f"mine={adapter}",
        "--prompt=-",
        "--max-new-tokens=6",
        "--temperature=0.7",
        "--seed=3",
    ]
    told = [swarm(*asked, form, cwd=tmp_path, stdin="one\n\ntwo\n").stdout for form in ("--json", "--toon")]
    data = json.loads(told[0])
    assert [row["model"] for row in data["models"]] == ["tiny-toon", "mine"]
    assert [row["text"] for row in data["prompts"]] == ["one", "two"]
    assert [(row["prompt"], row["model"]) for row in data["answers"]] == [
        (1, "tiny-toon"), (1, "mine"), (2, "tiny-toon"), (2, "mine"),
    ]  # fmt: skip
    assert all(0 < row["tokens"] <= 6 and row["seconds"] > 0 for row in data["answers"])
    again = toon.decode(told[1])
    assert [row["text"] for row in again["answers"]] == [row["text"] for row in data["answers"]], (
        "sampled with one seed"
    )


def test_wrong_names_are_refused_in_a_line(adapter: Path, tmp_path: Path) -> None:
    refused = {
        ("compare", "no-such"): "no-such is not on this machine",
        ("compare", str(adapter), "--device", "tpu"): "--device: 'tpu' is no device; take cpu, mps, or gpu0",
        (
            "compare",
            str(adapter),
            "--html",
            "no/such/page.html",
        ): "no/such/page.html: its folder is not there; make it first",
        ("compare", str(adapter), "--prompts", "none.txt"): "none.txt: cannot be read",
        (
            "compare",
            str(adapter),
            "--prompt",
            "long " * 3000,
            "--device",
            "cpu",
        ): "prompt 1: the question has about",
    }
    for words, what in refused.items():
        done = swarm(*words, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert what in done.stderr and len(done.stderr.splitlines()) == 1
