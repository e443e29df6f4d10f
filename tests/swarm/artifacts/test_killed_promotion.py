"""SIGKILL while an adapter is published or promoted: whole before, whole after, nothing between, and the next coordinator finishes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EVERY = 1 if os.environ.get("TORTURE") == "1" else 29
"""With TORTURE each operation on a file is the last one of some process; else one in so many."""


@pytest.mark.skipif(sys.platform != "linux", reason="children are forked")
@pytest.mark.timeout(600)
def test_a_kill_at_any_step_leaves_the_old_weights_or_the_new_ones_and_a_log_that_agrees(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.swarm.artifacts.killed_promotion", str(tmp_path), str(EVERY)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
