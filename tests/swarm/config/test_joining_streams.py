"""What a stream that joins a running run may not bring with it: anybody with an agent's key may let one join."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config import added
from swarm.errors import UserErrors
from tests.swarm.config.conftest import Loading


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["judge.endpoint=http://evil.example/v1", "judge.model=m", "judge.key_variable=HF_TOKEN"], "go to the judge that the run began with"),
        (["trust_remote_code=true"], "no code is brought into a running run"),
        (["base_model=/tmp/evil"], "all streams of a running run train on the bases"),
    ],
)  # fmt: skip
def test_neither_code_nor_a_judge_comes_with_a_stream_that_joins(loading: Loading, words: list[str], why: str) -> None:
    run = loading(
        "name: x\ndefaults: {base_model: tiny-toon, datasets: [{path: data/train.jsonl}]}\nstreams: {wide: {}}"
    ).run
    assert added.checked(run, "new", "wide", ["lora_r=4"], Path("/"), files=False).lora_r == 4
    with pytest.raises(UserErrors, match=why):
        added.checked(run, "new", "wide", words, Path("/"), files=False)
