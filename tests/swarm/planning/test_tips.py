"""A43, G14: the table of docs/tips.md is what `swarm plan` estimates, and its counted figures are their arithmetic."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.swarm.planning.test_estimate import GB, LLAMA_8B, needed

PAGE = (Path(__file__).parents[3] / "docs/tips.md").read_text(encoding="utf-8")
ROWS = {
    "QLoRA (NF4, double quantisation)": {"adapter": "qlora"}, "LoRA on bf16": {"adapter": "lora"}, "DoRA on bf16": {"adapter": "lora", "use_dora": True},
}  # fmt: skip


def test_the_table_of_the_tips_is_what_swarm_plan_estimates() -> None:
    for name, changes in ROWS.items():
        cells = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |")).split(" | ")
        trained, base, own, whole = (float(re.search(r"[\d.]+", cell)[0]) for cell in cells[1:])  # type: ignore[index]
        need = needed(
            LLAMA_8B, lora_r=16, sequence_len=1024, micro_batch_size=1, gradient_checkpointing=True, **changes
        )
        assert need.trainable == pytest.approx(trained * 1e6, rel=0.02)
        assert need.weights == pytest.approx(base * GB, rel=0.02)
        assert need.adapter + need.gradients + need.moments == pytest.approx(own * GB, rel=0.06)
        assert need.total == pytest.approx(whole * GB, rel=0.02)


def test_a_row_of_all_weights_is_two_bytes_for_each_weight_and_gradient_and_eight_for_its_moments() -> None:
    parameters = 8.03e9
    assert (2 + 8) * parameters == pytest.approx(80 * GB, rel=0.01)
    assert (2 + 2 + 8) * parameters == pytest.approx(96.4 * GB, rel=0.01)
    assert "| all weights | 8.0 B | 16.1 GB | 80 GB | 96 GB |" in PAGE


def test_what_attention_costs_beside_the_weights_is_as_counted() -> None:
    scores = {length: 2 * length * 896 * 24 for length in (512, 1024)}
    assert scores[1024] == pytest.approx(44e6, rel=0.01)
    cost = {length: length * (494e6 + scores[length]) for length in scores}
    assert cost[1024] / cost[512] == pytest.approx(2.1, abs=0.05)
