"""`adapter: full`: all weights of a small model are trained, judged and loaded as any adapter is (G14's third column)."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.families import FAMILIES, facts_of, model_of
from tests.trainer.conftest import Bench
from tests.trainer.encoders import WORDS, save_encoder
from tests.trainer.test_facts import shapes_in_file
from trainer.data.prepared import TRAIN, read_rows

Make = Callable[..., StreamSettings]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def test_one_step_is_the_gradient_of_every_weight_of_the_base(bench: Bench, settings: Make, base: Path) -> None:
    """Of a base whose head is its embedding, so that both gradients meet in one matrix."""
    step = {"max_steps": 1, "optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": 0}
    trained = bench.trained(settings(adapter="full", micro_batch_size=48, lr_scheduler="constant", **step))["trained"]
    folder = bench.place.run_folder / trained.path
    rows = list(read_rows(bench.place.run_folder / next(iter(bench.prepared)) / TRAIN))
    assert len(rows) == 48
    model = AutoModelForCausalLM.from_pretrained(base)
    summed = sum(
        model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss
        * sum(label != -100 for label in row.labels)
        for row in rows
    )
    (summed / sum(row.supervised for row in rows)).backward()
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).merge_and_unload()
    theirs = dict(tuned.named_parameters(remove_duplicate=False))
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.abs().max() > 0, name
        torch.testing.assert_close(theirs[name].detach(), value.detach() - 0.5 * value.grad, rtol=1e-4, atol=1e-6)
    assert torch.equal(theirs["lm_head.weight"], theirs["model.embed_tokens.weight"])


@pytest.mark.parametrize("changes", [{}, {"full_weight_dtype": "bfloat16", "optimizer": "adamw_kahan"}], ids=str)
def test_it_learns_is_judged_and_resumed(bench: Bench, settings: Make, changes: dict[str, object]) -> None:
    chosen = settings(adapter="full", max_steps=8, save_steps=4, learning_rate=2e-3, lr_scheduler="constant", **changes)
    trained = bench.trained(chosen)["trained"]
    assert trained.figures["loss"] < trained.figures["first_loss"] - 0.2
    prepared = next(iter(bench.prepared))
    given = {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", chosen, **given, figures=trained.figures)["verdict"]
    assert verdict.result == "SUCCESS", verdict.why
    assert verdict.figures["eval_loss"] < verdict.figures["base_eval_loss"] - 0.2
    half = bench.place.run_folder.glob("streams/one/t*/checkpoint-4")
    resumed = [str(next(half).relative_to(bench.place.run_folder))]
    again = bench.do("train", chosen, prepared=prepared, resume_from=resumed)["trained"]
    first, second = (load_file(bench.place.run_folder / one.path / ADAPTER) for one in (trained, again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    wanted = getattr(torch, str(changes.get("full_weight_dtype", "float32")))
    assert {value.dtype for value in first.values()} == {wanted}


@pytest.mark.parametrize(
    ("modules", "held"),
    [
        (["layers.1.mlp", "norm"], ["model.layers.1.mlp.", "model.norm."]),
        (["lm_head"], ["lm_head.", "model.embed_tokens."]),  # one matrix of two names
    ],
    ids=str,
)
def test_some_modules_alone_are_trained(bench: Bench, settings: Make, modules: list[str], held: list[str]) -> None:
    """C01."""
    chosen = settings(adapter="full", full_modules=modules, max_steps=4, learning_rate=2e-3)
    trained = bench.trained(chosen)["trained"]
    assert trained.figures["loss"] < trained.figures["first_loss"]
    names = [
        name.removeprefix("base_model.model.") for name in load_file(bench.place.run_folder / trained.path / ADAPTER)
    ]
    assert all(name.startswith(tuple(held)) for name in names)
    assert all(any(name.startswith(part) for name in names) for part in held)
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", chosen, **given, figures=trained.figures)["verdict"]
    assert verdict.result == "SUCCESS", verdict.why


def test_a_module_that_the_base_lacks_is_refused(bench: Bench, settings: Make) -> None:
    with pytest.raises(UserError, match="layer is no module of the base"):
        bench.trained(settings(adapter="full", full_modules=["layer"], max_steps=1))


def test_an_encoder_is_tuned_whole_to_tell_labels(bench: Bench, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{a} {b}", "label": "{a}"}}\n' for a in ("fire", "ice") for b in WORDS))
    chosen = StreamSettings.model_validate({
        "base_model": str(save_encoder(tmp_path / "encoder")), "method": "classify", "labels": ["fire", "ice"], "adapter": "full",
        "datasets": [{"path": str(rows), "type": "labelled"}], "val_set_size": 4, "sequence_len": 16, "max_steps": 20, "micro_batch_size": 8, "learning_rate": 1e-3, "max_heldout_ratio": 9,
    })  # fmt: skip
    trained = bench.trained(chosen)["trained"]
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", chosen, **given, figures=trained.figures)["verdict"]
    assert verdict.result == "SUCCESS", verdict.why
    names = load_file(bench.place.run_folder / trained.path / ADAPTER)
    assert {"base_model.model.classifier.weight", "base_model.model.bert.embeddings.word_embeddings.weight"} < set(
        names
    )


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_an_encoder_is_tuned_whole_to_find_masked_words_with_its_head(bench: Bench, tmp_path: Path, tied: bool) -> None:
    """Embedding and head stay the one matrix that they are, also after a resume; another head has its own."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "{a} {b} {a} {b}"}}\n' for a in WORDS for b in WORDS))
    chosen = StreamSettings.model_validate({
        "base_model": str(save_encoder(tmp_path / "encoder", tie_word_embeddings=tied)), "method": "mlm", "adapter": "full",
        "datasets": [{"path": str(rows), "type": "text"}], "val_set_size": 12, "sequence_len": 16, "max_steps": 24, "save_steps": 12,
        "micro_batch_size": 16, "learning_rate": 3e-3, "lr_scheduler": "constant", "mask_share": 0.3,
    })  # fmt: skip
    trained = bench.trained(chosen)["trained"]
    assert trained.figures["loss"] < trained.figures["first_loss"] - 0.2
    names = load_file(bench.place.run_folder / trained.path / ADAPTER)
    table = names["base_model.model.bert.embeddings.word_embeddings.weight"]
    assert torch.equal(names["base_model.model.cls.predictions.decoder.weight"], table) == tied
    base = dict(AutoModelForMaskedLM.from_pretrained(chosen.base_model).named_parameters(remove_duplicate=False))
    for own in ("transform.dense.weight", "decoder.bias"):
        value = names[f"base_model.model.cls.predictions.{own}"]
        assert not torch.equal(value, base[f"cls.predictions.{own}"]), "the head learns too"
    verdict = judged(bench, chosen, trained)
    assert verdict.result == "SUCCESS", verdict.why
    assert verdict.figures["eval_loss"] < verdict.figures["base_eval_loss"] - 0.2
    half = next(bench.place.run_folder.glob("streams/one/t*/checkpoint-12"))
    given = {"prepared": next(iter(bench.prepared)), "resume_from": [str(half.relative_to(bench.place.run_folder))]}
    again = load_file(bench.place.run_folder / bench.do("train", chosen, **given)["trained"].path / ADAPTER)
    assert all(torch.equal(names[name], again[name]) for name in names)


def judged(bench: Bench, chosen: StreamSettings, trained: Any) -> Any:
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    return bench.do("validate", chosen, **given, figures=trained.figures)["verdict"]


@pytest.mark.parametrize("family", FAMILIES)
def test_its_file_holds_what_is_stated_before_anything_is_loaded(family: str) -> None:
    chosen = StreamSettings.model_validate(
        {"base_model": "x", "datasets": [{"path": "x"}], "sequence_len": 32, "adapter": "full"}
    )
    base, kind = facts_of(family), kinds.adapter("full")
    stated = kind.tensors(base, chosen)
    made = kind.attach(model_of(family), base, chosen)
    assert shapes_in_file(made) == stated
    stepped = sum(value.numel() for value in made.parameters() if value.requires_grad)
    assert sum(map(prod, kind.trained(base, chosen).values())) == stepped, "a tied matrix is counted once"


@pytest.mark.parametrize(("changes", "key"), [({"weight_decay": 0.1}, "weight_decay"), ({"method": "dpo"}, "adapter")])
def test_what_would_go_wrong_is_refused(changes: dict[str, object], key: str) -> None:
    chosen = StreamSettings.model_validate(
        {"base_model": "x", "datasets": [{"path": "x"}], "adapter": "full", **changes}
    )
    why = kinds.adapter("full").refusal(chosen)
    assert why is not None and why.key == key
    assert kinds.adapter("full").refusal(chosen.model_copy(update={"weight_decay": 0.0, "method": "orpo"})) is None
