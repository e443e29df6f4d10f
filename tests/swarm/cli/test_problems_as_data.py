"""`swarm check --json` says what is wrong so that an editor can mark it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import toon
from swarm.cli import app

TEXT = """\
name: run
defaults:
  base_model: tiny-toon
  datasets: [{path: rows.jsonl, type: prompt_completion}]
streams:
  wide: {lora_r: 4, learnig_rate: 1e-3}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')


def test_each_problem_has_file_line_column_key_and_fix(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(TEXT)
    done = CliRunner().invoke(app, ["check", "my.yaml", "lora_r=0", "--json"])
    assert done.exit_code == 2
    misspelt, typed = json.loads(done.stdout)["problems"]
    assert misspelt == {
        "file": "my.yaml", "line": 6, "column": 21, "key": "streams.wide.learnig_rate",
        "what": "unknown setting", "fix": "did you mean `learning_rate`?",
    }  # fmt: skip
    assert (typed["file"], typed["line"], typed["column"]) == ("command line", None, None)
    assert typed["key"] == "lora_r" and typed["fix"]


def test_a_file_that_is_no_yaml_is_a_problem_with_a_place_too(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("name: run\nstreams: [\n")
    done = CliRunner().invoke(app, ["check", "my.yaml", "--toon"])
    (problem,) = toon.decode(done.stdout)["problems"]
    assert done.exit_code == 2 and (problem["file"], problem["line"], problem["column"]) == ("my.yaml", 3, 1)
    assert problem["what"].startswith("not YAML")
