"""A config that was run before is known by the hash of what matters (issue 21), a search by the whole of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm import events as ev
from swarm.artifacts.inputs import WHOLE, of_run, ran_before
from swarm.config import load
from swarm.errors import UserError
from swarm.launch.layout import Layout
from swarm.log import LogWriter
from swarm.planning.starting import Plan, refuse_repetition
from swarm.rundir import RunFolder
from swarm.settings import Halving, RunSettings, Search
from tests.swarm.story import Story, settings


def search() -> RunSettings:
    run = settings("wide", "narrow")
    narrow = run.streams["narrow"].model_copy(update={"learning_rate": 0.5})
    return run.model_copy(update={"halving": Halving(first_step=9), "streams": {**run.streams, "narrow": narrow}})


def ran(runs: Path, run: RunSettings, rc: int) -> RunFolder:
    """The loser has stopped early, as in every search."""
    folder = RunFolder(runs / "demo-1126-1000-aaaa")
    folder.path.mkdir(parents=True)
    folder.config.write_text("name: demo\n")
    folder.inputs.write_text(json.dumps(of_run(run)))
    story = Story("wide", "narrow")
    story.say("coordinator", ev.Stop(ref="narrow", why="halving at step 9"))
    story.scored("wide", 0.5)
    story.say("coordinator", ev.End(ref="run", rc=rc))
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    return folder


def test_a_search_that_went_to_its_end_is_known_with_its_best_although_its_losers_stopped(tmp_path: Path) -> None:
    folder = ran(tmp_path, search(), rc=0)
    earlier = ran_before(search(), tmp_path)[WHOLE]
    assert (earlier.run, earlier.stream, earlier.result) == (folder.name, "wide", "eval_loss 0.5")


@pytest.mark.parametrize("change", ["rungs", "sampler", "stream"])
def test_another_search_over_the_same_streams_is_another_one(tmp_path: Path, change: str) -> None:
    ran(tmp_path, search(), rc=0)
    run = search()
    wide = run.streams["wide"]
    changed = {
        "rungs": {"halving": Halving(first_step=3)},
        "sampler": {"streams": {**run.streams, "wide": wide.model_copy(update={"search": Search(space={"lora_r": [4]})})}},
        "stream": {"streams": {**run.streams, "wide": wide.model_copy(update={"seed": 3})}},
    }  # fmt: skip
    assert WHOLE not in ran_before(run.model_copy(update=changed[change]), tmp_path)


def test_a_search_that_failed_may_be_run_again(tmp_path: Path) -> None:
    ran(tmp_path, search(), rc=1)
    assert WHOLE not in ran_before(search(), tmp_path)


def test_a_config_whose_streams_were_trained_before_is_refused_with_the_place_of_the_result(tmp_path: Path) -> None:
    rows = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    (tmp_path / "rows.jsonl").write_text(9 * rows)
    text = "name: demo\nstreams: {wide: {base_model: tiny-toon, datasets: [{path: rows.jsonl, type: chatml}]}}\n"
    (tmp_path / "my.yaml").write_text(text)

    def planned(*words: str) -> Plan:
        config = load(Path("my.yaml"), [f"runs_dir={tmp_path}/runs", *words], cwd=tmp_path)
        return Plan(config, {}, {}, Layout(workers=()))

    refuse_repetition(planned())
    folder = ran(tmp_path / "runs", planned().config.run, rc=1)
    with pytest.raises(
        UserError, match=rf"streams\.wide: wide ran before .*; {folder.name} has wide: eval_loss 0\.5; look at"
    ) as told:
        refuse_repetition(planned("logging_steps=2"))
    assert "--again" in str(told.value)
    refuse_repetition(planned("learning_rate=3e-3"))
    (tmp_path / "rows.jsonl").write_text(10 * rows)
    refuse_repetition(planned())  # other rows in the same file are another training
