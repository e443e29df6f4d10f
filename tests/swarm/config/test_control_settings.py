"""Rows C04, C08 to C15, C53: what a control adapter's settings exclude is refused where it is written, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config import load
from swarm.errors import UserErrors
from swarm.settings import StreamSettings

BOTH = "datasets: [{path: a.txt, type: document}, {path: b.txt, type: document, control_class: -1}]"
MIXED = "datasets: [{path: a.txt, type: document}, {path: b.txt, type: document, control_class: -1, prefix_class: 1}]"
OTHER = "adapter: lora"
NEUTRAL = "datasets: [{path: a.txt}, {path: b.txt, control_class: 0}]"


def loaded(folder: Path, *lines: str) -> StreamSettings:
    for name in "ab":
        (folder / f"{name}.txt").write_text(name)
    own = ["adapter: control", *lines] if OTHER not in lines else list(lines)
    head = "name: q\nstreams:\n  one:\n    base_model: tiny-toon\n"
    (folder / "my.yaml").write_text(head + "".join(f"    {line}\n" for line in own))
    return load(Path("my.yaml"), cwd=folder).run.streams["one"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["datasets: [{path: a.txt}]"], "datasets: every dataset has control_class +1: there is nothing to tell apart; add one of class -1, or write `allow_one_class: true`"),
        (["datasets: [{path: a.txt, control_class: -1}, {path: b.txt, control_class: -1}]"], "every dataset has control_class -1"),
        ([BOTH, "lora_weight_dtype: bfloat16"], "lora_weight_dtype: control adapters have none"),
        ([BOTH, "use_dora: true"], "use_dora: control adapters have none"),
        ([BOTH, "control_neutral_lambda: 0.1"], "control_neutral_lambda: no dataset has control_class 0"),
        ([BOTH, "control_adapter_type: spectral", "lora_weight_decay: 1", "lora_weight_decay_type: l2"], "lora_weight_decay_type: a spectral adapter decays S itself"),
        ([MIXED, "mix_datasets: true"], "mix_datasets: documents of several prefix_class would share a sequence"),
        ([BOTH, "control_adapter_gamma: 0.6"], "control_adapter_gamma: expected a number above 0 and at most 0.5, got 0.6"),
        ([BOTH, "engine: trl"], "engine: trl cannot train"),
        ([BOTH, "learning_rate: 0.01", "lora_weight_decay: 500"],
         "lora_weight_decay: times learning_rate 0.01 it takes off 3.75 times what there is at each step; write at most 133, or lower the rate"),
        ([BOTH, "learning_rate: 0.01", "lora_weight_decay: 101", "control_adapter_type: spectral"], "it takes off 1.01 times what there is"),
        ([BOTH, "learning_rate: 0.1", "lora_weight_decay: 6", "rank_pattern: {layers.1.mlp: 1}"], "it takes off 3.6 times what there is"),
        ([BOTH, "learning_rate: 0.01", "lora_weight_decay: 100", OTHER], "datasets: lora adapters know no control_class"),
        (["datasets: [{path: a.txt}]", OTHER, "learning_rate: 0.01", "lora_weight_decay: 100"], "it takes off 4 times what there is"),
        (["datasets: [{path: a.txt}]", OTHER, "lora_weight_dtype: bfloat16", "lora_weight_decay: 10"],
         "lora_weight_dtype: a decay is below what a weight in bfloat16 is rounded to: it would do nothing; write float32, or leave"),
        (["datasets: [{path: a.txt}]", OTHER, "lora_weight_dtype: bfloat16", "lora_max_norm: 1"], "lora_weight_dtype: a decay is below"),
        (["datasets: [{path: a.txt}]", OTHER, "test_datasets: [{path: b.txt, control_class: -1}]"], "test_datasets: lora adapters know no control_class"),
    ],
)  # fmt: skip
def test_what_a_control_adapter_cannot_be_is_refused_where_it_is_written(
    tmp_path: Path, lines: list[str], told: str
) -> None:
    with pytest.raises(UserErrors) as caught:
        loaded(tmp_path, *lines)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        ["datasets: [{path: a.txt}]", "allow_one_class: true"],
        [NEUTRAL, "control_neutral_lambda: 0.1"],
        [BOTH, "mix_datasets: true"],
        [BOTH, "learning_rate: 0.01", "lora_weight_decay: 500", "lora_weight_decay_type: frobenius"],
        [BOTH, "learning_rate: 0.01", "lora_weight_decay: 133", "lora_max_norm: 2"],
    ],
)
def test_and_what_it_can_be_is_not(tmp_path: Path, lines: list[str]) -> None:
    assert loaded(tmp_path, *lines).adapter == "control"
