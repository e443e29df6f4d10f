"""Asks Optuna, which lives in a process of the trainer: one question, one answer, and nothing is kept there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from swarm.spawning import module_command


async def answer(question: Mapping[str, Any]) -> Any:
    """Raises ValueError with the last line of what the process says if it gives none."""
    process = await asyncio.create_subprocess_exec(
        *module_command("trainer", "suggest"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    given, talk = await process.communicate(json.dumps(question).encode())
    if process.returncode:
        lines = talk.decode(errors="replace").strip().splitlines()
        raise ValueError(lines[-1] if lines else f"Optuna's process ended with exit status {process.returncode}")
    return json.loads(given)
