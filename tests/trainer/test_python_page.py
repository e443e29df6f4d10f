"""X05: docs/python.md is one script that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


def test_the_blocks_of_the_python_page_are_a_script_that_trains_and_saves_an_adapter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {"__name__": "script"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/python.md", "exec"), names)
    rows, tensors, losses, saved, _ = [line for line in capsys.readouterr().out.splitlines() if line]
    assert rows.startswith("144 rows") and tensors.endswith("parameters")
    assert len(losses.split(",")) >= 3
    assert saved == "['train_log.csv', 'train_log.json', 'wide'] PeftModelForCausalLM"
    assert all(names["history"][-1][name] < loss for name, loss in names["history"][0].items()), "D06"
    assert names["wide"].step >= 3 and names["narrow"].step == 6
