"""What libraries say to their developers does not reach the screen of whoever starts a program of the trainer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from swarm.spawning import module_command

TRAINER = Path(__file__).parents[2] / "trainer"


def test_every_program_that_people_start_silences_them() -> None:
    started = [path for path in TRAINER.rglob("*.py") if "    open_output()\n" in path.read_text(encoding="utf-8")]
    assert len(started) > 10
    assert [path.name for path in started if "    quieten()\n" not in path.read_text(encoding="utf-8")] == []


def test_rows_are_shown_without_a_word_of_theirs(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    written = tmp_path / "one.json"
    written.write_text(json.dumps({"base_model": "tiny-toon", "datasets": [{"path": str(rows)}]}))
    command = module_command("trainer.show", "--settings", str(written))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "a" in done.stdout
    assert done.stderr == ""
