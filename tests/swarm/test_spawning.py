"""A user's own `trainer.py` is not taken for ours, whatever PYTHONPATH says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.spawning import OURS

ROW = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with modules that bear the names of ours, and one that is its user's alone."""
    for name in OURS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the user has {name}.py')")
    (tmp_path / "own.py").write_text("")
    (tmp_path / "rows.jsonl").write_text(ROW)
    return tmp_path


def swarm(project: Path, python_path: str) -> subprocess.CompletedProcess[str]:
    """A command that starts a process of the trainer, as an installed one: it finds `swarm` before what the user has."""
    start = "import sys; sys.path.insert(0, sys.argv.pop(1)); import swarm.cli; del sys.path[0]; swarm.cli.main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", start, str(Path.cwd()), "data", "toon", "rows.jsonl", "--out", "rows.toon"],
        cwd=project, env={**os.environ, "PYTHONPATH": python_path}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("python_path", [".", ":", ":/nowhere", "HERE", "/nowhere:HERE"])
def test_names_of_ours_in_a_folder_of_pythonpath_are_not_imported(project: Path, python_path: str) -> None:
    done = swarm(project, python_path.replace("HERE", str(project)))
    assert done.returncode == 0, done.stderr
    assert (project / "rows.toon").read_text() == "rows[1]{prompt,completion}:\n  a,b\n"


def test_other_modules_of_pythonpath_are_found_as_before(project: Path) -> None:
    code = "from swarm.spawning import find_own_modules_first; find_own_modules_first(); import own, toon; print(own.__file__, toon.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); {code}"],
        env={**os.environ, "PYTHONPATH": str(project)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(project / "own.py"), str(Path.cwd() / "toon/__init__.py")]
