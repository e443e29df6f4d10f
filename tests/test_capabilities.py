"""docs/capabilities.md says of every capability what stands: its rows are complete, its commands parse, its tests exist."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.test_docs import commands, refusal

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/capabilities.md").read_text(encoding="utf-8")
LAST = {"D": 39, "U": 24, "A": 44, "C": 56, "G": 29, "X": 14}
"""The last number of each source's rows; all below it stand too."""
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in PAGE.splitlines()
    if re.match(r"\| [DUACGX]\d\d ", line)
]


def test_every_row_stands_once_and_in_order() -> None:
    assert [row[0] for row in ROWS] == [f"{of}{n:02}" for of, last in LAST.items() for n in range(1, last + 1)]


def test_a_row_works_is_partly_there_is_missing_or_was_dropped_for_a_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for id_, _, state, where, why in ROWS:
        assert state in {"works", "part", "none", "dropped"}, id_
        assert why, f"{id_}: {state}, but nothing says what is missing or which test proves it"
        assert where or state != "works", f"{id_}: works, but nothing says how it is used"
    counts = {of: Counter(row[2] for row in ROWS if row[0][0] == of) for of in LAST}
    with capsys.disabled():
        print(*(f"\n{of}: {dict(sorted(found.items()))}" for of, found in counts.items()))


def test_every_command_that_a_row_names_parses() -> None:
    assert not [why for command in commands(PAGE) if (why := refusal(command))]


def test_every_test_that_a_row_names_exists_and_what_works_names_one() -> None:
    for id_, _, state, _, why in ROWS:
        named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", why)
        assert named or state != "works", f"{id_}: works without a test"
        for file, name in named:
            path = ROOT / file
            assert path.exists(), f"{id_}: {file} is not there"
            functions = {n.name for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if hasattr(n, "name")}
            assert name in functions, f"{id_}: {file} has no {name}"
