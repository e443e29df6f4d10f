"""Row X01: the source system's own command line runs as it was typed, to its end, and prints the line of D24."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import swarm_process as sp
from tests.swarm.cli.test_flags import TYPED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(540)]
CONFIGS = Path(__file__).parents[2] / "configs"
LINE = re.compile(
    r"both +train_loss=\d+\.\d+ \| eval_loss=\d+\.\d+ \| train_runtime=\d+\.\ds \| samples/s=\d+\.\d+ \| steps/s=\d+\.\d+ \| eval_steps/s=\d+\.\d+"
)
FEW = ("--epochs", "0.2", "--warmup_steps", "2", "--plateau-patience", "4", "--plateau-delta", "99", "eval_steps=5", "save_steps=5",
       "models.decoder.eval_rows=2")  # fmt: skip
"""Ten steps; no loss falls by so much, so that the plateau is at the first step where it can be."""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def run(place: Path, *words: str) -> str:
    shutil.copytree(CONFIGS, place / "configs")
    done = sp.swarm("run", "configs/duo.yaml", *words, "--plain", cwd=place, timeout=500)
    return done.stdout + done.stderr


def test_the_command_with_fewer_steps_runs_to_its_end_and_escapes_from_its_plateau(tmp_path: Path) -> None:
    told = run(tmp_path, *TYPED, *FEW)
    assert LINE.search(told), told
    assert "plateau" in told and "decoder and encoder, an adapter each" in told


@pytest.mark.skipif(os.environ.get("TORTURE") != "1", reason="`make torture` runs it: 300 steps")
def test_the_command_as_it_was_typed_runs_to_its_end(tmp_path: Path) -> None:
    told = run(tmp_path, *TYPED)
    assert LINE.search(told), told
    assert re.search(r"trained both/train .*300 steps", told), told
