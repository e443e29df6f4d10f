"""Rows D01, D03, D04: by `swarm run` two models of one stream are prepared, trained, judged each on its own and published side by side.

A trainer that is killed in between goes on with the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from swarm import events as ev
from swarm.rundir import RunFolder
from swarm.weights import ADAPTER, adapter_sha256
from tests.runs import swarm_process as sp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
STYLE = Path(__file__).parents[2] / "configs/data/style"
DUO = f"""\
  both:
    method: duo
    optimizer: duo
    duo_mode: split
    arbiter: loss_slope
    eval_steps: 8
    lora_dropout: 0.1
    models:
      encoder:
        base_model: tiny-toon
        lora_r: 2
        learning_rate: 1e-2
        objective: classify
        labels: [garden, kitchen, desk]
        sequence_len: 256
        datasets: [{{path: {STYLE}/topics.jsonl, type: labelled}}]
        test_datasets: [{{path: {STYLE}/eval_topics.jsonl, type: labelled}}]
      decoder: {{base_model: tiny-toon, lora_r: 4}}"""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path) -> Iterator[None]:
    yield from sp.end_everything(tmp_path)


def kill_the_trainer(folder: RunFolder) -> None:
    checkpoints = folder.path / "streams" / "both"
    sp.wait_for(lambda: list(checkpoints.glob("t*/checkpoint-8")), "the first checkpoint", folder=folder)
    sp.kill(sp.living_workers(folder))


def test_two_models_are_trained_in_one_stream_and_a_killed_trainer_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    config = sp.write_config(tmp_path, streams=DUO, steps=24)
    folders = [sp.start(config, "save_steps=8"), sp.start(config, "save_steps=8")]
    kill_the_trainer(folders[1])
    ends = [sp.wait_for_end(folder) for folder in folders]
    assert [state.end.rc for state in ends if state.end] == [0, 0]
    for state, folder in zip(ends, folders, strict=True):
        stream = state.streams["both"]
        for model in ("encoder", "decoder"):
            assert stream.figures[f"{model}_eval_loss"] < stream.figures[f"base_{model}_eval_loss"]
            assert (folder.promoted / model / "README.md").is_file() and (
                folder.promoted / model / "prompt.json"
            ).is_file()
        lineage = json.loads((folder.promoted / "lineage.json").read_text())
        assert lineage["settings"]["models"]["encoder"]["lora_r"] == 2
        assert adapter_sha256(folder.promoted) == lineage["sha256"]
    whole, resumed = (
        [load_file(folder.promoted / model / ADAPTER) for model in ("encoder", "decoder")] for folder in folders
    )
    for one, other in zip(whole, resumed, strict=True):
        assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)
    name = folders[0].name
    told = json.loads(
        sp.swarm(
            "ask", "How do I get a lawn right?", "--run", name, "--task", "classification", "--json", cwd=tmp_path
        ).stdout
    )
    assert told["label"] in {"garden", "kitchen", "desk"}
    asked = ("compare", name, "--prompt", "say 1", "--max-new-tokens", "3", "--json")
    compared = json.loads(sp.swarm(*asked, cwd=tmp_path).stdout)
    assert [model["model"] for model in compared["models"]] == ["tiny-toon", "both", "both/encoder"]
    claims = [entry.event for entry in sp.entries(folders[1]) if isinstance(entry.event, ev.Claim)]
    assert sum(claim.ref == "both/train" for claim in claims) > 1
