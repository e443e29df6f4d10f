"""What `check` and `plan` say of a config that is right: what no adapter reaches, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from swarm.planning.notes import notes
from swarm.settings import RunSettings
from tests.families import facts_of

ONE = {"base_model": "mix", "datasets": [{"path": "a.jsonl"}]}


def run_of(**streams: dict[str, Any]) -> RunSettings:
    return RunSettings.model_validate({"name": "q", "streams": {name: {**ONE, **own} for name, own in streams.items()}})


def test_experts_that_get_no_adapter_are_reported_with_their_share_of_the_weights() -> None:
    base = facts_of("mixtral")
    share = f"{base.experts_parameters / base.parameters:.0%}"
    told = notes(run_of(a={}, b={"lora_r": 4}), {"mix": base, "plain": facts_of("llama")})
    assert told == [f"mix: its experts, {share} of the weights, get no adapter; the layers around them do"]


def test_attention_that_has_to_be_eager_is_named_where_nobody_chose_it() -> None:
    base = facts_of("gemma2")
    [said] = notes(run_of(a={}), {"mix": base})
    assert said.startswith("mix: attention is computed eagerly (attn_implementation: eager)")
    assert notes(run_of(a={"attn_implementation": "eager"}), {"mix": base}) == []


def test_streams_on_other_rows_or_bases_are_distinguished() -> None:
    plain = replace(facts_of("llama"), experts_parameters=0)
    run = run_of(a={}, b={"lora_r": 4}, c={"test_datasets": [{"path": "h.jsonl"}]}, d={"base_model": "other"})
    [told] = notes(run, {"mix": plain, "other": plain})
    assert told.endswith("compare figures within a group (a, b; c; d)")


def test_a_base_in_four_bits_is_measured_on_its_own() -> None:
    told, _ = notes(run_of(a={}, b={"adapter": "qlora"}), {"mix": facts_of("llama")})
    assert "qlora streams are compared with the base in 4 bits" in told
