"""What a start costs: which libraries an import may bring along, and that layers keep to themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes", "numpy", "pandas"}


def modules_after(statement: str) -> set[str]:
    """Top-level names in sys.modules after running the statement in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_the_command_line_starts_without_anything_heavy() -> None:
    assert not modules_after("import swarm.cli") & (
        HEAVY | {"textual", "zmq", "asyncio", "pydantic", "rich", "yaml", "sqlite3"}
    )


def test_the_dashboard_knows_no_trainer_and_no_torch() -> None:
    assert not modules_after("import tui.app") & (HEAVY | {"trainer"})


def test_the_coordinator_knows_no_heavy_library() -> None:
    assert not modules_after("import swarm.coordinator.coordinator") & (HEAVY | {"trainer", "textual"})


def test_toon_needs_the_standard_library_only() -> None:
    assert modules_after("import toon") - set(sys.stdlib_module_names) <= {
        "toon",
        "__main__",
        "sitecustomize",
        "_distutils_hack",
        "__editable___toonswarm_0_2_0_finder",
    }


@pytest.mark.parametrize(
    "command",
    [
        "init",
        "check",
        "show",
        "plan",
        "run",
        "watch",
        "status",
        "log",
        "stop",
        "resume",
        "ask",
        "export",
        "prune",
        "env",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "swarm.cli", command, "--help"], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) > 3
