"""Rows A38 and A40: a better and a worse answer to each prompt, and every parameter of the methods arriving in TRL."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm.errors import UserError
from swarm.planning.rows import most_steps
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer.data.prepared import HELD_OUT, TRAIN, read_rows
from trainer.data.tokens import IGNORED
from trainer.engines.preferences import _behind_the_prompt, _with_neighbours

Make = Callable[..., StreamSettings]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
FIRST = {"max_steps": 1, "save_steps": 1, "lr_scheduler": "constant", "max_grad_norm": 0.0, "micro_batch_size": 4}


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": f"double {n}", "chosen": str(2 * n), "rejected": f"{n} twice"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(settings: Make, pairs_file: Path) -> Make:
    data = {"path": str(pairs_file), "type": "prompt_completion", "completion": "chosen", "rejected": "rejected"}
    return lambda **changes: settings(**{"datasets": [data], "val_set_size": 8, **changes})


def figures(bench: Bench) -> list[dict[str, float]]:
    return [row.figures for row in bench.metric_rows() if row.kind == "train"]


def first(bench: Bench, chosen: StreamSettings) -> dict[str, float]:
    bench.trained(chosen)
    return figures(bench)[0]


def test_both_answers_are_prepared_behind_one_prompt(bench: Bench, pairs: Make) -> None:
    folder = bench.place.run_folder / bench.do("prepare", pairs(method="dpo"))["prepared"].path
    rows = [*read_rows(folder / TRAIN), *read_rows(folder / HELD_OUT)]
    assert len(rows) == 40
    for row in rows:
        assert row.rejected and list(row.rejected) != row.ids[row.answer_start :]
        assert row.labels[: row.answer_start] == [-100] * row.answer_start


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_a_preference_is_learned_saved_and_resumed(bench: Bench, pairs: Make, method: str) -> None:
    given = pairs(method=method, max_steps=24, save_steps=12, learning_rate=1e-2, logging_steps=4)
    whole = bench.trained(given)["trained"]
    margins = [row["rewards_margins"] for row in figures(bench)]
    assert margins[-1] > margins[0]
    tokens = [row["tokens"] for row in figures(bench)]
    assert tokens == sorted(tokens) and tokens[0] > 0
    folder = bench.place.run_folder / whole.path
    assert not (folder / "ref").exists(), "the reference is the base"
    half = folder.with_name("checkpoint-12")
    resumed = bench.trained(given, resume_from=[bench.place.relative(half)])["trained"]
    before, after = (
        load_file(bench.place.run_folder / one.path / "adapter_model.safetensors") for one in (whole, resumed)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_dpos_beta_and_loss_arrive(bench: Bench, pairs: Make) -> None:
    """A38.  At the first step policy and reference are equal: the loss is known, and its gradient is that of beta."""
    plain = first(bench, pairs(method="dpo", **FIRST))
    assert plain["loss"] == pytest.approx(math.log(2), rel=1e-4)
    strong = first(bench, pairs(method="dpo", dpo_beta=0.3, **FIRST))
    assert strong["grad_norm"] == pytest.approx(3 * plain["grad_norm"], rel=1e-3)
    assert first(bench, pairs(method="dpo", dpo_loss="hinge", **FIRST))["loss"] == pytest.approx(1, rel=1e-4)
    assert first(bench, pairs(method="dpo", dpo_loss="ipo", dpo_beta=0.5, **FIRST))["loss"] == pytest.approx(
        1, rel=1e-4
    )


def test_ktos_beta_and_weights_arrive(bench: Bench, pairs: Make) -> None:
    """A40.  At the first step each loss is its weight times 1 - sigmoid(0)."""
    plain = first(bench, pairs(method="kto", **FIRST))
    assert plain["loss"] == pytest.approx(0.5, rel=1e-4)
    strong = first(bench, pairs(method="kto", kto_beta=0.3, **FIRST))
    assert strong["grad_norm"] == pytest.approx(3 * plain["grad_norm"], rel=1e-3)
    better = first(bench, pairs(method="kto", desirable_weight=3.0, **FIRST))["loss"]
    worse = first(bench, pairs(method="kto", undesirable_weight=3.0, **FIRST))["loss"]
    assert better + worse - 2 * 0.5 == pytest.approx(1.0, rel=1e-4), "of four answers each is better or worse"
    likelier = []
    for weight in ("desirable_weight", "undesirable_weight"):
        bench.trained(pairs(method="kto", **{**FIRST, "max_steps": 8, weight: 1e-3}))
        likelier.append(figures(bench)[-1]["rewards_chosen"])
    assert likelier[0] < likelier[1], "what counts for nearly nothing is not learned"


def test_orpo_counts_the_odds_of_the_answers_alone() -> None:
    """A39: prompts have no labels."""
    made = _behind_the_prompt({"input_ids": [1, 2, 3], "answer_start": 2, "rejected": [4]})
    assert made["chosen_labels"] == [IGNORED, IGNORED, 3] and made["rejected_labels"] == [IGNORED, IGNORED, 4]
    assert made["chosen_input_ids"] == [1, 2, 3] and made["rejected_input_ids"] == [1, 2, 4]


def test_kto_compares_each_answer_with_the_one_of_another_row() -> None:
    """A40: its reference point is the divergence on answers that do not belong to their prompts."""
    assert _with_neighbours({"completion_ids": [[1], [2], [3]]}) == {"KL_completion_ids": [[3], [1], [2]]}


@pytest.mark.parametrize(("method", "steps"), [("dpo", 8), ("kto", 16)])
def test_an_epoch_has_as_many_steps_as_was_predicted(bench: Bench, pairs: Make, method: str, steps: int) -> None:
    """A40: KTO learns from each of the two answers by itself."""
    given = pairs(method=method, max_steps=None, num_epochs=1, micro_batch_size=4, gradient_accumulation_steps=1)
    assert bench.trained(given)["trained"].step == most_steps(given, 32) == steps


def test_orpos_weight_arrives(bench: Bench, pairs: Make) -> None:
    """A39.  The loss is the likelihood and alpha times the odds ratio's, so that it is a line in alpha, and above the likelihood."""
    plain, more, most = (
        first(bench, pairs(method="orpo", orpo_alpha=alpha, **FIRST))["loss"] for alpha in (0.1, 0.3, 0.5)
    )
    assert first(bench, pairs(method="orpo", **FIRST))["loss"] == plain, "0.1 unless it is set"
    of_odds = (more - plain) / 0.2
    assert of_odds > 0.1
    assert most == pytest.approx(plain + 0.4 * of_odds, rel=1e-4)


def test_what_the_stream_sets_arrives_too(bench: Bench, pairs: Make) -> None:
    """Its optimizer, schedule and dropout, which TRL would switch off."""
    for method in ("dpo", "kto"):
        given = {"method": method, "optimizer": "sgd", "learning_rate": 0.5, "warmup_steps": 2, "max_steps": 4}
        bench.trained(pairs(**given))
        assert [row["learning_rate"] for row in figures(bench)] == pytest.approx([0, 0.25, 0.5, 0.25])
    with_dropout = first(bench, pairs(method="dpo", lora_dropout=0.5, **FIRST))
    assert with_dropout["grad_norm"] != pytest.approx(first(bench, pairs(method="dpo", **FIRST))["grad_norm"], rel=1e-3)


def test_weight_decay_shrinks_what_has_no_gradient(bench: Bench, pairs: Make) -> None:
    """D13: matrix A, in the first step."""
    found = []
    for decay in (0.0, 0.5):
        given = {**FIRST, "optimizer": "adamw_torch", "learning_rate": 1e-2, "weight_decay": decay}
        trained = bench.trained(pairs(method="dpo", **given))["trained"]
        tensors = load_file(bench.place.run_folder / trained.path / "adapter_model.safetensors")
        found.append(torch.cat([tensors[name].flatten() for name in sorted(tensors) if "lora_A" in name]))
    torch.testing.assert_close(found[1], found[0] * (1 - 1e-2 * 0.5), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "double 1", "chosen": "2", "rejected": "2"}, "its two completions are equal"),
        ({"prompt": "double 1", "chosen": "2"}, "no column 'rejected'"),
    ],
)
def test_a_row_without_two_answers_is_a_bad_one(
    bench: Bench, pairs: Make, tmp_path: Path, row: dict[str, Any], what: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row) + "\n")
    data = {"path": str(path), "type": "prompt_completion", "completion": "chosen", "rejected": "rejected"}
    with pytest.raises(UserError, match=what):
        bench.do("prepare", pairs(method="dpo", datasets=[data]))
