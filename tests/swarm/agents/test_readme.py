"""What README shows of agents is what works: its Python script runs as it stands, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import opened, state

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


def test_the_python_script_of_the_readme_claims_works_and_finishes(tmp_path: Path) -> None:
    [script] = [
        code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "from swarm import Agent" in code
    ]
    folder: RunFolder = opened(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=sp.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert state(folder).tasks["data/check"].done is not None
    assert "done data/check ada" in done.stdout
