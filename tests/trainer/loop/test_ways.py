"""The script that compares a shared pass with TRL and with N processes runs, in its smallest form, on a CPU and on a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
FORMS = [
    pytest.param({"CUDA_VISIBLE_DEVICES": "", "SIZE": "embedded", "TOKENS": "16"}, id="cpu"),
    pytest.param(
        {"SIZE": "0.5B", "TOKENS": "64"},
        id="gpu",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_train_two_streams_is_measured_or_left_out_with_the_reason(
    form: dict[str, str], tmp_path: Path
) -> None:
    small = {"COUNTS": "2", "ROUNDS": "1", "SECONDS": "0.2", "OUT": str(tmp_path), **form}
    command = [sys.executable, str(ROOT / "tests/benchmarks/bench_ways.py")]
    done = subprocess.run(command, env={**os.environ, **small}, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "ways.json").read_text())[f"{form['TOKENS']} x 2"]
    ways = {"together", "bound", "one after another", "TRL", "processes"}
    assert ways <= found.keys() <= {*ways, "processes, MPS"}
    assert min(found.values()) > 0
    assert ("processes, MPS" in found) != ("CUDA MPS is left out: " in done.stdout)


def test_without_a_gpu_the_script_for_gpus_says_so() -> None:
    command = [sys.executable, str(ROOT / "tests/benchmarks/bench_gpu.py"), "map"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.strip().endswith("bench_loop.py and bench_ways.py measure on a CPU")
