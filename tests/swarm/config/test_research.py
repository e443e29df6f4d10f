"""`research:`, `feedback:`, `alerts:` and goal files (issue 21): what is wrong in them is found with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import UserError, UserErrors
from swarm.planning import goal
from swarm.settings.research import allows
from swarm.settings.search import Range
from tests.swarm.config.conftest import Loading

GOAL = """---
config: ../my.yaml
start: wide
phases: {data: {space: {datasets: [[{path: few.jsonl}]]}}, rates: {space: {learning_rate: [1e-4, 2e-3]}}}
budget: {steps: 9}
---
# Read a table
"""


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("research: {start: wdie, phases: {a: {space: {lora_r: [4]}}}}", r"research\.start: there is no stream wdie; write one of wide"),
        ("research: {start: wide, phases: {a: {space: {lora_rr: [4]}}}}", r"research\.phases: phase a changes lora_rr, which is no setting of the stream"),
        ("research: {start: wide, phases: {a: {spaec: {}}}}", r"research\.phases\.a\.spaec: unknown setting; did you mean `space`"),
        ("research: {start: wide, phases: {a: {space: {lora_r: {low: 8, high: 4}}}}}", r"research\.phases: phase a changes lora_r, which has no number from 8 to 4; exchange them"),
        ("research: {start: wide, phases: {a: {space: {lora_r: [4, 0, x]}}}}", r"phase a changes lora_r, which cannot be 0; correct it"),
        ("research: {start: wide, phases: {a: {space: {optimizer: [adamw, lino]}}}}", r"phase a changes optimizer, which cannot be lino; correct it"),
        ("research: {start: wide, phases: {a: {space: {base_model: [x]}}}}", r"phase a changes base_model, which cannot be changed: all streams of a running run"),
        ("research: {start: wide, phases: {a: {space: {judge: [{endpoint: 'http://x/v1', model: m}]}}}}", r"phase a changes judge, which cannot be changed: answers and a key of the environment go to the judge that the run began with"),
        ("research: {start: wide, phases: {train: {space: {lora_r: [4]}}}}", r"research\.phases: phase train bears the name of a role, whose tasks workers do"),
        ("feedback: {below: 9}", r"feedback\.below: expected a number above 1 and at most 5"),
        ("feedback: {canary_share: 0.5}\ndefaults: {method: classify, labels: [a, b]}", r"feedback: wide has `method: classify`, which does not learn from conversations"),
        ("feedback: {least: 3}\ndefaults: {sealed_datasets: [{path: data/train.jsonl}]}", r"feedback: wide has `sealed_datasets`, and what ratings promote"),
        ("alerts: [{on: [end]}]", r"alerts: alert 1 has neither `url` nor `command`"),
        ("alerts: [{url: 'ftp://x'}]", r"alerts\.0\.url: expected http://\.\.\. or https://"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_with_its_place(loading: Loading, written: str, problem: str) -> None:
    text = "name: demo\nstreams:\n  wide: {base_model: tiny-toon, datasets: [{path: data/train.jsonl, type: chatml}]}\n"
    with pytest.raises(UserErrors, match=problem):
        loading(f"{text}{written}\n")


def test_the_head_of_a_goal_file_is_a_config_with_the_research_laid_over_it(tmp_path: Path) -> None:
    (tmp_path / "goals").mkdir()
    (tmp_path / "goals" / "goal.md").write_text(GOAL)
    found = goal.read(tmp_path / "goals" / "goal.md")
    assert found.config == tmp_path / "goals" / ".." / "my.yaml"
    assert found.words[1] == "budget={steps: 9}"
    assert str(tmp_path / "goals" / "few.jsonl") in found.words[0]
    assert "learning_rate: [0.0001, 0.002]" in found.words[0] and "config" not in found.words[0]


def test_a_goal_file_may_have_been_saved_by_any_editor_and_lie_behind_a_link(tmp_path: Path) -> None:
    expected = None
    for number, text in enumerate([GOAL, GOAL.replace("\n", "\r\n"), "\ufeff" + GOAL, GOAL.replace("---\n#", "--- \n#"), GOAL.partition("# Read")[0].rstrip()]):  # fmt: skip
        (tmp_path / f"{number}.md").write_bytes(text.encode())
        (tmp_path / f"link{number}.md").symlink_to(tmp_path / f"{number}.md")
        found = goal.read(tmp_path / f"link{number}.md").words
        assert found == (expected := expected or found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("---\nconfig: a.yaml\nconfig: b.yaml\n---\n", r"goal\.md:3: config: written twice, first on line 2"),
        (f"---\na: {'[' * 3000}{']' * 3000}\n---\n", r"goal\.md:[12]: nested too deeply"),
        ("---\nconfig: 3\n---\n", "names no config"),
        ("# no head\n", r"goal\.md: has no head with settings; begin it with `---`"),
        ("---\nstart: wide\n---\n", "names no config"),
        ("---\nstart: [\n---\n", r"goal\.md:"),
    ],
)
def test_a_goal_file_that_is_none_is_refused_with_the_reason(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "goal.md").write_text(text)
    with pytest.raises((UserError, UserErrors), match=problem):
        goal.read(tmp_path / "goal.md")
    with pytest.raises(UserErrors, match=r"none\.md: no such file; name a goal file"):
        goal.read(tmp_path / "none.md")


def test_a_space_allows_its_values_and_of_a_data_set_what_it_names() -> None:
    rows = [{"path": "/a.jsonl", "type": "chatml", "limit": None}]
    assert allows([[{"path": "/a.jsonl"}]], rows, rows) and not allows([[{"path": "/b.jsonl"}]], rows, rows)
    assert not allows([[{"path": "/a.jsonl"}, {"path": "/b.jsonl"}]], rows, rows)
    assert not allows([[{"path": "/a.jsonl"}]], rows, [{"path": "/c.jsonl", "type": "text"}])
    whole, real = Range(low=4, high=16), Range(low=1e-4, high=1e-2)
    assert allows(whole, 16) and not allows(whole, 4.5) and not allows(whole, True)
    assert allows(real, 1e-4) and not allows(real, 2e-2) and not allows(real, "x")
