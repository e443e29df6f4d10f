"""Rows G21 and X11: a stream on top of another adapter is trained as on a base that has it merged, and its file needs no other one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.trainer.conftest import Bench
from tests.trainer.tiny import save_adapter
from trainer.bases import facts_of
from trainer.ship.deltas import Adapter
from trainer.ship.merge import merge, recipe_of

Make = Callable[..., StreamSettings]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
SMALLER = {"r": 6, "lora_alpha": 9, "target_modules": ["q_proj", "v_proj"]}
"""Another rank, scale and layers than those of the stream on top of it."""


@pytest.fixture(scope="module")
def start(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(base, tmp_path_factory.mktemp("start"), **SMALLER)


@pytest.fixture(scope="module")
def merged(base: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "model"
    merge(recipe_of([start], None, "linear", 0.5), str(base), out)
    return out


def judged(bench: Bench, chosen: StreamSettings, trained: Any) -> Any:
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    return bench.do("validate", chosen, **given, figures=trained.figures)["verdict"]


def losses(bench: Bench) -> list[float]:
    return [row.figures["loss"] for row in bench.metric_rows() if row.kind == "train"]


PAIRS = [{"prompt": f"double {n}", "chosen": str(2 * n), "rejected": f"{n} twice"} for n in range(30)]


@pytest.fixture(scope="module")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    data = {"path": str(path), "type": "prompt_completion", "completion": "chosen", "rejected": "rejected"}
    return {"datasets": [data], "val_set_size": 6}


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"use_dora": True}, {"use_rslora": True}, {"kl_lambda": 0.5}, {"gradient_checkpointing": True},
        {"engine": "trl"}, {"engine": "trl", "use_rslora": True},
    ],
    ids=str,
)  # fmt: skip
def test_it_is_trained_as_on_a_base_that_has_the_other_one_merged(
    bench: Bench, settings: Make, start: Path, merged: Path, changes: dict[str, Any]
) -> None:
    """With a KL term the teacher is the base with the other adapter too."""
    bench.trained(settings(start_adapter=str(start), **changes))
    on_top = losses(bench)
    bench.trained(settings(base_model=str(merged), **changes))
    on_merged = losses(bench)
    bench.trained(settings(**changes))
    assert on_top == pytest.approx(on_merged, rel=1e-4)
    assert abs(on_top[0] - losses(bench)[0]) > 1e-3, "it does not begin on the bare base"


@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_preferences_are_learned_on_top_of_it_as_on_a_merged_base(
    bench: Bench, settings: Make, start: Path, merged: Path, preferences: dict[str, Any], method: str
) -> None:
    """The reference of DPO and KTO is the base with the other adapter: a first loss of ln 2 would not tell, the later ones do."""
    chosen = {"method": method, "lr_scheduler": "constant", **preferences}
    bench.trained(settings(start_adapter=str(start), **chosen))
    on_top = losses(bench)
    bench.trained(settings(base_model=str(merged), **chosen))
    on_merged = losses(bench)
    bench.trained(settings(**chosen))
    assert on_top == pytest.approx(on_merged, rel=1e-4)
    assert on_top != pytest.approx(losses(bench), rel=1e-3), "it is not trained on the bare base"


@pytest.mark.parametrize("engine", ["shared", "trl"])
def test_its_file_is_an_ordinary_adapter_of_the_base_with_both(
    bench: Bench, settings: Make, base: Path, start: Path, merged: Path, engine: str
) -> None:
    own = {"rank_pattern": {"v_proj": 2}, "max_steps": 12, "max_heldout_ratio": 9, "engine": engine}
    chosen = settings(start_adapter=str(start), **own)
    trained = bench.trained(chosen)["trained"]
    assert trained.start_sha256 and trained.start_sha256 != trained.sha256[: len(trained.start_sha256)]
    folder = bench.place.run_folder / trained.path
    held = load_file(folder / ADAPTER)
    layer = "base_model.model.model.layers.1.self_attn.{}_proj.lora_A.weight"
    assert [len(held[layer.format(name)]) for name in "qkv"] == [8 + 6, 8, 2 + 6]
    facts, kind = facts_of(str(base)), kinds.adapter("lora")
    assert kind.tensors(facts, chosen) == {name: tuple(value.shape) for name, value in held.items()}
    assert sum(a * b for a, b in kind.trained(facts, chosen).values()) == trained.trainable
    verdict = judged(bench, chosen, trained)
    assert verdict.result == "SUCCESS", verdict.why
    bare = dict(AutoModelForCausalLM.from_pretrained(base).named_parameters())
    on_base = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).merge_and_unload()
    ours, theirs = Adapter(folder), dict(on_base.named_parameters())
    for module in ours.modules:
        change = ours.change(module)
        assert change is not None
        torch.testing.assert_close(change.added_to(bare[f"{module}.weight"]), theirs[f"{module}.weight"].detach())
    below = dict(AutoModelForCausalLM.from_pretrained(merged).named_parameters())
    name = "model.layers.0.self_attn.q_proj"
    own = theirs[f"{name}.weight"] - below[f"{name}.weight"]
    assert 0 < torch.linalg.matrix_rank(own.detach(), rtol=1e-4) <= 8, "the other one is in it unchanged"


@pytest.mark.parametrize("engine", ["shared", "trl"])
def test_a_base_in_4_bits_needs_no_merged_one(bench: Bench, settings: Make, start: Path, engine: str) -> None:
    own = {"adapter": "qlora", "max_steps": 8, "max_heldout_ratio": 9, "engine": engine}
    chosen = settings(start_adapter=str(start), **own)
    verdict = judged(bench, chosen, bench.trained(chosen)["trained"])
    assert verdict.result == "SUCCESS", verdict.why


@pytest.mark.parametrize("engine", ["shared", "trl"])
def test_it_goes_on_with_the_same_bits_and_not_on_another_adapter(
    bench: Bench, settings: Make, base: Path, tmp_path: Path, engine: str
) -> None:
    start = save_adapter(base, tmp_path / "start", **SMALLER)
    chosen = settings(start_adapter=str(start), engine=engine)
    trained = bench.trained(chosen)["trained"]
    half = next(bench.place.run_folder.glob("streams/one/t*/checkpoint-2"))
    given = {"prepared": next(iter(bench.prepared)), "resume_from": [str(half.relative_to(bench.place.run_folder))]}
    again = bench.do("train", chosen, **given)["trained"]
    first, second = (load_file(bench.place.run_folder / one.path / ADAPTER) for one in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    save_adapter(base, start, seed=2, **SMALLER)
    with pytest.raises(UserError, match="is not the adapter on which this training began"):
        bench.do("train", chosen, **given)


def test_an_adapter_of_other_weights_of_the_same_shapes_is_refused(
    bench: Bench, settings: Make, base: Path, tmp_path: Path
) -> None:
    """As of a base and its chat model."""
    start = save_adapter(base, tmp_path / "start", **SMALLER)
    (start / "lineage.json").write_text(json.dumps({"trained": {"base_sha256": "0" * 16}}))
    with pytest.raises(UserError, match="was trained on other weights") as refused:
        bench.trained(settings(start_adapter=str(start)))
    assert refused.value.where == "start_adapter"


@pytest.mark.parametrize("first", ["pissa", "olora"])
def test_an_adapter_that_began_with_a_part_of_the_base_is_judged_too(
    bench: Bench, settings: Make, base: Path, first: str
) -> None:
    """Row X11: its file has twice the rank, and twice as much is not trained."""
    chosen = settings(init_lora_weights=first, max_steps=8, max_heldout_ratio=9)
    trained = bench.trained(chosen)["trained"]
    assert trained.trainable == sum(
        a * b for a, b in kinds.adapter("lora").trained(facts_of(str(base)), chosen).values()
    )
    verdict = judged(bench, chosen, trained)
    assert verdict.result == "SUCCESS", verdict.why


@pytest.mark.parametrize(
    ("made", "changes", "why"),
    [
        ({"use_dora": True}, {}, "no half of a pair of LoRA"),
        ({}, {"lora_target_modules": "v_proj"}, "which this stream does not"),
        ({"modules_to_save": ["norm"]}, {}, "no half of a pair of LoRA"),
    ],
    ids=str,
)
def test_what_cannot_stand_below_another_adapter_is_refused(
    settings: Make, base: Path, tmp_path: Path, made: dict[str, Any], changes: dict[str, Any], why: str
) -> None:
    start = save_adapter(base, tmp_path / "start", **{**SMALLER, **made})
    chosen = settings(start_adapter=str(start), **changes)
    with pytest.raises(UserError, match=why) as refused:
        kinds.adapter("lora").tensors(facts_of(str(base)), chosen)
    assert refused.value.where == "start_adapter"
