"""The rooms that stay light: a worker says hello before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "pyarrow", "numpy")


@pytest.mark.parametrize(
    "module",
    [
        "trainer.roles",
        "trainer.worker",
        "trainer.methods",
        "trainer.adapters",
        "trainer.bases",
        "trainer.__main__",
    ],
)
def test_importing_it_leaves_the_heavy_libraries_out(module: str) -> None:
    code = f"import sys, json, {module}; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
