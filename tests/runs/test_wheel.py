"""What users install is the wheel: built from this tree and put into an empty environment, it runs the demo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """What it printed on stdout.  Nothing of this environment reaches it but what pip needs."""
    kept = {
        k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "LC_")) or k in {"PATH", "LANG", "HOME"}
    }
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**kept, "HF_HUB_OFFLINE": "1"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_built_wheel_in_an_empty_environment_runs_the_demo(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: a build leaves its files in the tree
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "tests"))
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source, cwd=tmp_path)
    [wheel] = tmp_path.glob("toonswarm-*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    program = tmp_path / "env/bin"
    lock = ROOT / "requirements.lock"
    run(program / "python", "-m", "pip", "install", "--quiet", "-c", lock, f"{wheel}[train,tui]", cwd=tmp_path)
    words = ("--plain", "--json", "max_steps=2", "eval_rows=2", "runs_dir=runs")
    said = json.loads(run(program / "swarm", "run", ROOT / "configs/demo.yaml", *words, cwd=tmp_path))
    assert {row["stream"] for row in said["streams"]} == {"lora-8", "lora-32", "dora-8", "qlora-8"}
    assert all(row["step"] == 2 for row in said["streams"])
    assert len(list(tmp_path.glob("runs/*/COLLABORATION.md"))) == 1
    found = run(program / "python", "-c", "import swarm; print(swarm.__file__)", cwd=tmp_path)
    assert found.startswith(str(tmp_path))
