"""Streams that may share one base in memory, and those that may not."""

from __future__ import annotations

import pytest

from swarm.policy.batching import batch_key, engine_of, engines_of, groups
from swarm.settings import Dataset, StreamSettings

PLAIN = {"base_model": "tiny-toon", "datasets": [Dataset(path="x.jsonl")]}


@pytest.mark.parametrize(
    "own",
    [
        {"lora_r": 64, "lora_alpha": 1.0, "use_dora": True, "use_rslora": True, "lora_dropout": 0.1},
        {"learning_rate": 1e-3, "optimizer": "lion_32bit", "seed": 7, "max_grad_norm": 0.5},
        {"datasets": [Dataset(path="y.jsonl")], "sequence_len": 64, "micro_batch_size": 8, "max_steps": 3},
    ],
)
def test_what_a_stream_has_of_its_own_does_not_keep_it_apart(own: dict[str, object]) -> None:
    assert batch_key(StreamSettings.model_validate({**PLAIN, **own})) == batch_key(StreamSettings.model_validate(PLAIN))


@pytest.mark.parametrize(
    "own", [{"base_model": "another"}, {"adapter": "qlora"}, {"bf16": False}, {"trust_remote_code": True}]
)
def test_another_base_or_one_that_stands_otherwise_in_memory_keeps_it_apart(own: dict[str, object]) -> None:
    assert batch_key(StreamSettings.model_validate({**PLAIN, **own})) != batch_key(StreamSettings.model_validate(PLAIN))


def test_the_settings_choose_the_engine_and_kinds_say_which_can() -> None:
    streams = {
        name: StreamSettings.model_validate({**PLAIN, **own})
        for name, own in {
            "a": {}, "b": {"engine": "trl"}, "c": {"lora_r": 4, "engine": "shared"}, "d": {"adapter": "qlora"}, "e": {"exact": True},
        }.items()
    }  # fmt: skip
    assert [engine_of(one) for one in streams.values()] == ["shared", "trl", "shared", "shared", "shared"]
    assert groups(streams) == [("a", "c"), ("d",), ("e",)]
    assert engines_of(streams["b"]) == {"shared", "trl"}
