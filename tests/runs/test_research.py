"""Issue 21 (G01, G26): the research loop whole, in the scripted example: two agents, a person's veto, a killed leader, a kept configuration."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.agents.skill import TEXT
from tests.runs import swarm_process as sp

SCRIPT = Path(__file__).parents[2] / "configs" / "agents" / "research_agents.py"
SHORT = ["defaults.max_steps=6", "defaults.save_steps=6", "defaults.micro_batch_size=4", "budget.steps=36"]
WHOLE = os.environ.get("TORTURE") == "1"
"""`make torture` trains each trial as long as the example says."""
SECONDS = 3000 if WHOLE else 400
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 20)]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def heard(folder: Path) -> list[str]:
    """The occasions of the alerts."""
    return [json.loads(line)["occasion"] for line in (folder / "heard").read_text().splitlines()]


def test_two_agents_and_a_person_research_and_what_is_kept_beats_the_start_by_more_than_chance(tmp_path: Path) -> None:
    (tmp_path / "heard.py").write_text("import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))")
    alert = f"alerts=[{{command: [{sys.executable}, {tmp_path}/heard.py, {tmp_path}/heard], on: [new_best, end]}}]"
    done = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path), *([] if WHOLE else SHORT), alert], capture_output=True, text=True, check=False, timeout=SECONDS)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (tmp_path / "runs").iterdir()
    folder = sp.RunFolder(path)
    state, entries = sp.state(folder), sp.entries(folder)
    results = {name: one.conclusion.result for name, one in state.proposals.items() if one.conclusion}
    assert results.keys() == {"more-rows", "wild", "quicker"} == state.proposals.keys(), "every proposal has its answer"
    assert results["quicker"] == "keep" and state.kept == "quicker"
    assert results["wild"] == "discard" and "wild" not in state.streams, "carol objected to it"
    conclusion = state.proposals["quicker"].conclusion
    assert conclusion and conclusion.p is not None and conclusion.p < 0.01 / 6
    leaders = [entry.author for entry in entries if isinstance(entry.event, ev.Claim) and entry.event.ref == "research/data"]  # fmt: skip
    assert leaders == ["ada", "bob"] and any(isinstance(e.event, ev.Expire) for e in entries)
    assert "refused" in " ".join(entry.event.body for entry in entries if isinstance(entry.event, ev.Post))
    assert "quicker [keep]" in done.stdout
    sp.wait_for(lambda: heard(tmp_path)[-1:] == ["end"], "the alert of the end", folder=folder)
    assert heard(tmp_path)[0] == "new_best"
    checked = sp.swarm("check", str(path / "kept.yaml"), cwd=tmp_path)
    assert "# quicker (entry" in (path / "kept.yaml").read_text() and not checked.stderr.startswith("error")
    assert '"keep"' in sp.swarm("ledger", "--json", cwd=tmp_path).stdout
    sp.swarm("ledger", "--svg", "ledger.svg", cwd=tmp_path)
    assert (tmp_path / "ledger.svg").read_text().count("<circle") >= 3


GOAL = """---
config: run.yaml
start: wide
phases: {rates: {space: {learning_rate: {low: 1e-5, high: 1e-2}}}}
proposals: 2
---
A lower held-out loss.
"""


def test_an_agent_does_its_part_of_a_research_with_the_commands_of_the_guide_and_no_others(tmp_path: Path) -> None:
    sp.write_config(tmp_path, streams="  wide: {lora_r: 2, eval_rows: 0}", steps=2)
    (tmp_path / "goal.md").write_text(GOAL)
    section = TEXT.partition("## Research")[2].partition("##")[0]
    stand_ins = {"GOAL.md": "goal.md", "research/PHASE": "research/rates", "NEW": "quicker", "BEST": "wide"}
    said = {}
    for command in re.findall(r"`swarm ([^`]+)`", section):
        words = [stand_ins.get(word, word) for word in shlex.split(command)]
        answer = sp.swarm(*words, cwd=tmp_path).stdout
        said[words[0]] = answer
        if found := re.match(r"claimed research/rates token=(\d+)", answer):
            stand_ins["N"] = found[1]
    assert list(said) == ["research", "wait", "claim", "ledger", "propose", "object", "approve", "done"]
    assert "it may change learning_rate: 1e-05 to 0.01" in said["ledger"]
    assert "conclude quicker" in said["wait"], "what it waited for is in the answer"
    [path] = (tmp_path / "runs").iterdir()
    state = sp.wait_for_end(sp.RunFolder(path))
    assert state.proposals["quicker"].by == "ada" and state.proposals["quicker"].conclusion
    assert state.tasks["research/rates"].done and state.end and state.end.rc == 0
