"""Rows C03, C08, C13, G13: how a base in 4 bits is held, the type of the adapter's weights, and which layers it stands on, from settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm import kinds
from swarm.policy.batching import batch_key, engines_of
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.loading import load_base
from trainer.place import Place

Make = Callable[..., StreamSettings]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
HELD: list[dict[str, Any]] = [
    {},
    {"bnb_4bit_quant_type": "fp4"},
    {"bnb_4bit_use_double_quant": False},
    {"bnb_4bit_compute_dtype": "bfloat16"},
]


def test_a_base_is_held_in_4_bits_as_its_stream_says_and_streams_that_differ_share_none(
    settings: Make, tmp_path: Any
) -> None:
    streams = [settings(adapter="qlora", **changes) for changes in HELD]
    assert len({batch_key(stream) for stream in streams}) == len(HELD)
    found = []
    for stream in streams:
        base = load_base(tmp_path / stream.base_model, stream, Place(tmp_path, "cpu"))
        layer = base.get_submodule("model.layers.0.mlp.up_proj")
        state = layer.weight.quant_state
        found.append((state.quant_type, state.nested, layer.compute_dtype))
    whole, narrow = torch.float32, torch.bfloat16
    assert found == [("nf4", True, whole), ("fp4", True, whole), ("nf4", False, whole), ("nf4", True, narrow)]


@pytest.mark.parametrize("changes", HELD[1:3], ids=str)
def test_every_way_to_hold_it_trains(bench: Bench, settings: Make, changes: dict[str, Any]) -> None:
    bench.trained(settings(adapter="qlora", max_steps=12, learning_rate=2e-2, **changes))
    losses = [row.figures["loss"] for row in bench.metric_rows() if row.kind == "train"]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_fp32_constants_cost_what_an_estimate_says() -> None:
    kind = kinds.adapter("qlora")
    chosen = kind.settings()
    plain = chosen.model_copy(update={"bnb_4bit_use_double_quant": False})
    assert kind.bits(plain) - kind.bits(chosen) == pytest.approx(0.373, abs=1e-3)


def test_an_adapter_in_bfloat16_is_trained_and_saved_in_it(bench: Bench, settings: Make) -> None:
    chosen = settings(lora_weight_dtype="bfloat16", optimizer="adamw_kahan", max_steps=12, learning_rate=1e-2)
    assert engines_of(chosen) == {"trl"}
    trained = bench.trained(chosen)["trained"]
    tensors = load_file(bench.place.run_folder / trained.path / "adapter_model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    losses = [row.figures["loss"] for row in bench.metric_rows() if row.kind == "train"]
    assert sum(losses[-3:]) < sum(losses[:3])


@pytest.mark.parametrize("engine", ["shared", "trl"])
def test_modes_layers_and_patterns_say_where_an_adapter_stands_and_how_wide_it_is(
    bench: Bench, settings: Make, engine: str
) -> None:
    """Rows A09 and C13, and the file that comes of it."""
    chosen = settings(
        engine=engine,
        lora_target_mode="attn",
        layers_to_transform="-1",
        lora_r=4,
        rank_pattern={"v_proj": 2},
        alpha_pattern={"k_proj": 32},
    )
    trained = bench.trained(chosen)["trained"]
    tensors = load_file(bench.place.run_folder / trained.path / "adapter_model.safetensors")
    config = json.loads((bench.place.run_folder / trained.path / "adapter_config.json").read_text())
    assert config["alpha_pattern"] == {"k_proj": 32}
    ranks = {name: len(value) for name, value in tensors.items() if "lora_A" in name}
    at = "base_model.model.model.layers.1.self_attn"
    assert ranks == {f"{at}.{end}_proj.lora_A.weight": 2 if end == "v" else 4 for end in "qkvo"}
