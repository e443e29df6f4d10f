"""Row X01: settings may be typed as flags; whatever is no setting fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swarm.cli.flags import as_overrides

ROOT = Path(__file__).parents[3]
TYPED = [
    "--optimizer", "duo", "--duo-mode", "hybrid", "--epochs", "6", "--learning_rate", "2e-5", "--weight_decay", "0.01", "--warmup_steps", "200",
    "--scheduler_type", "linear", "--use-mmt", "--use-jade", "--plateau-patience", "150", "--plateau-delta", "5e-4",
]  # fmt: skip


def test_flags_are_overrides_in_the_order_in_which_they_were_typed() -> None:
    words = ["--use-mmt", "seed=3", "--duo-mode", "hybrid", "--streams.my-own.lora-r=4", "--epochs=6", "--use-jade"]
    assert as_overrides(words) == [
        "use_mmt=true", "seed=3", "duo_mode=hybrid", "streams.my-own.lora_r=4", "num_epochs=6", "use_jade=true",
    ]  # fmt: skip
    assert as_overrides(None) == []


@pytest.mark.parametrize(("words", "status", "what"), [
    ((), 0, "ok, 1 streams: both"),
    (("--colour", "red"), 2, "colour: unknown setting"),
])  # fmt: skip
def test_a_published_command_line_checks_and_a_flag_that_is_no_setting_fails(
    words: tuple[str, ...], status: int, what: str
) -> None:
    command = [sys.executable, "-m", "swarm.cli", "check", "configs/duo.yaml", *TYPED, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert what in done.stdout + done.stderr
