"""Rows C04, C06, C14, C26, C30, C32: a control adapter from its rows to its verdict, in the roles that a worker runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import Dataset, StreamSettings
from tests.trainer.conftest import Bench
from tests.trainer.roles.test_train import stop_after
from trainer import bases
from trainer.control.forms import scale_of
from trainer.data.classes import classes_of, predicted
from trainer.data.prepared import TRAIN, Rows, verified
from trainer.data.tokens import IGNORED, Tokens
from trainer.errors import LeaseStopped

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
ROWS = {"up": "{} up", "down": "{} down", "flat": "{} flat"}


@pytest.fixture(scope="module")
def styles(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Three files: of class 1, -1 and 0."""
    folder = tmp_path_factory.mktemp("styles")
    for name, text in ROWS.items():
        lines = [json.dumps({"prompt": f"say {number}", "completion": text.format(number)}) for number in range(24)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return [
        {"path": str(folder / f"{name}.jsonl"), "type": "prompt_completion", "control_class": one}
        for name, one in (("up", 1), ("down", -1), ("flat", 0))
    ]


CHANGES: dict[str, Any] = {"adapter": "control", "lora_r": 4, "learning_rate": 2e-2, "lr_scheduler": "constant"}


def test_a_control_adapter_is_trained_and_passes_its_validation_and_evaluation(
    bench: Bench, settings: Make, styles: list[dict[str, Any]]
) -> None:
    chosen = settings(
        datasets=styles, max_steps=30, save_steps=30, val_set_size=9, lora_target_modules=["o_proj"], **CHANGES
    )
    done = bench.trained(chosen)
    trained = done["trained"]
    rows = [row.figures for row in bench.metric_rows() if row.kind == "train"]
    assert rows[-1]["loss_toward"] < rows[0]["loss_toward"] and rows[-1]["loss_away"] < rows[0]["loss_away"]
    assert {"tokens_toward", "tokens_away", "loss_neutral", "adapter_norm", "adapter_norm_max"} <= rows[-1].keys()
    assert 0 <= rows[0]["token_accuracy"] < rows[-1]["token_accuracy"] <= 1
    tensors = load_file(bench.place.run_folder / trained.path / "adapter_model.safetensors")
    expected = kinds.adapter("control").tensors(bases.facts_of(chosen.base_model), chosen)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == expected
    saved = json.loads((bench.place.run_folder / trained.path / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"]) == (4, 2)
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    validated = bench.do("validate", chosen, **given)["verdict"]
    assert validated.result == "SUCCESS", validated
    assert validated.figures["eval_loss"] < validated.figures["base_eval_loss"]
    scored = bench.do("evaluate", chosen, **given)["score"]
    assert scored.figures["eval_loss"] == pytest.approx(validated.figures["eval_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("rank", "given", "scale"),
    [(1, {}, 1.0), (4, {}, 0.5), (8, {}, 0.375), (16, {}, 0.25), (32, {}, 0.1875), (8, {"lora_alpha": 8}, 1.0)],
)
def test_alpha_is_the_rounded_root_of_the_rank_unless_it_is_written(
    settings: Make, rank: int, given: dict[str, float], scale: float
) -> None:
    """C06: 3 of rank 8, 6 of rank 32; in the adapter's file, and divided by the rank in what it adds."""
    chosen = settings(adapter="control", lora_r=rank, **given)
    config = kinds.adapter("control").config(bases.facts_of(chosen.base_model), chosen)
    assert scale_of(config.lora_alpha, config.r, rslora=config.use_rslora) == scale


def test_site_map_and_weight_of_neutral_text_arrive(bench: Bench, settings: Make, styles: list[dict[str, Any]]) -> None:
    """C04, C12, C15, C53."""
    kind: Any = kinds.adapter("control")
    own = {"control_site": "block", "control_adapter_type": "spectral", "control_adapter_gamma": 0.25}
    chosen = settings(adapter="control", datasets=styles, **own)
    config = kind.config(bases.facts_of(chosen.base_model), chosen)
    assert (config.control_site, config.control_adapter_type) == ("block", "spectral")
    assert kind.shrinking(chosen).gamma == 0.25
    norms = []
    for weight in (0.0, 100.0):
        bench.trained(settings(datasets=styles, max_steps=8, control_neutral_lambda=weight, **CHANGES))
        norms.append(bench.metric_rows()[-1].figures["adapter_norm"])
    assert norms[1] < norms[0] / 1.2, "what adds little to neutral text is shorter"


def test_a_spectral_adapter_has_no_more_directions_than_the_base_is_wide(settings: Make) -> None:
    """C15: any other type may have more."""
    kind, chosen = kinds.adapter("control"), settings(adapter="control", lora_r=65)
    facts = bases.facts_of(chosen.base_model)
    assert kind.tensors(facts, chosen)
    with pytest.raises(
        UserError, match="lora_r: 65 orthonormal columns do not fit into the base's width of 64; lower it"
    ):
        kind.tensors(facts, settings(adapter="control", lora_r=65, control_adapter_type="spectral"))


def test_a_control_training_that_was_stopped_goes_on_bit_for_bit(
    bench: Bench, settings: Make, styles: list[dict[str, Any]], at_once: None
) -> None:
    chosen = settings(
        datasets=styles, max_steps=8, save_steps=100, lora_dropout=0.1, control_adapter_type="spectral", **CHANGES
    )
    whole = bench.trained(chosen)["trained"]
    losses = [(row.step, row.figures["loss"]) for row in bench.metric_rows()]
    prepared = next(iter(bench.prepared))
    bench.on_message = lambda message, lease: stop_after(3, message, lease)
    with pytest.raises(LeaseStopped):
        bench.do("train", chosen, prepared=prepared)
    saved = next(event for event in bench.events() if event.kind == "checkpoint")
    bench.on_message = lambda message, lease: None
    resumed = bench.do("train", chosen, prepared=prepared, resume_from=[saved.path])["trained"]
    assert [(row.step, row.figures["loss"]) for row in bench.metric_rows()] == losses[saved.step :]
    mine, other = (
        load_file(bench.place.run_folder / path / "adapter_model.safetensors") for path in (whole.path, resumed.path)
    )
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_rows_carry_the_class_of_each_token_and_other_adapters_read_none(
    bench: Bench, settings: Make, styles: list[dict[str, Any]]
) -> None:
    control = bench.do("prepare", settings(datasets=styles, **CHANGES))["prepared"].path
    plain = [{name: value for name, value in one.items() if name != "control_class"} for one in styles]
    lora = bench.do("prepare", settings(datasets=plain))["prepared"].path
    found = {abs(one) for row in Rows(bench.place.run_folder / control / TRAIN) for one in row.classes}
    assert found == {0, 1, 2}
    for row in Rows(bench.place.run_folder / control / TRAIN):
        assert all((one != 0) == (label != IGNORED) for one, label in zip(row.classes, row.labels, strict=True))
    assert not any(row.classes for row in Rows(bench.place.run_folder / lora / TRAIN))


@pytest.mark.parametrize(
    ("dataset", "fingerprint", "expected"),
    [
        ({"control_class": 1}, b"\0", [0, 0, 1, 0, 1]),
        ({"control_class": -1}, b"\0", [0, 0, -1, 0, -1]),
        ({"control_class": -1, "prefix_class": 1}, b"\0", [1, 1, -1, 0, -1]),
        ({"control_class": 0}, b"\1", [0, 0, 2, 0, 2]),
        ({"control_class": 0}, b"\2", [0, 0, -2, 0, -2]),
    ],
)
def test_the_class_of_a_token_is_that_of_its_dataset_where_it_is_supervised(dataset, fingerprint, expected) -> None:
    row = Tokens([5, 6, 7, 8, 9], [IGNORED, IGNORED, 7, IGNORED, 9], 2, fingerprint=fingerprint)
    assert classes_of(row, Dataset(path="-", **dataset)) == expected
    assert predicted(expected, 5) == [*expected[1:], 0]
    assert predicted((), 3) == [1, 1, 1]


def test_documents_keep_their_classes_through_the_cut_and_masked_tokens_have_none(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    (tmp_path / "up.txt").write_text("abcdefghijklmnopqrstuvwxyz")
    (tmp_path / "down.txt").write_text("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    datasets = [
        {"path": str(tmp_path / f"{name}.txt"), "type": "document", "control_class": one, "prefix_class": 1, "document_suffix": ""}
        for name, one in (("up", 1), ("down", -1))
    ]  # fmt: skip
    chosen = settings(
        datasets=datasets, test_datasets=[{**datasets[0], "control_class": 1}], allow_overlap=True, sequence_len=8,
        sequence_prefix="##", mix_datasets=True, mask_tokens=bench_ids("cC"), **CHANGES,
    )  # fmt: skip
    rows = list(Rows(bench.place.run_folder / bench.do("prepare", chosen)["prepared"].path / TRAIN))
    letters = {1: "abdefghijklmnopqrstuvwxyz", -1: "ABDEFGHIJKLMNOPQRSTUVWXYZ", 0: "cC"}
    ids = {one: set(bench_ids(text)) for one, text in letters.items()}
    for row in rows:
        assert list(row.classes[:2]) == [1, 1]
        for token, one in list(zip(row.ids, row.classes, strict=True))[2:]:
            assert token in ids[one]
    assert {one for row in rows for one in row.classes} == {1, -1, 0}


def test_what_is_judged_has_another_hash_where_its_class_is_another(
    bench: Bench, settings: Make, styles: list[dict[str, Any]]
) -> None:
    """C14: figures are compared only where it is equal; text of class +1 is judged as it is of adapters without classes."""

    def sha256_of(**changes: Any) -> str:
        held = [{**styles[2], "control_class": changes.pop("held", 1), "prefix_class": changes.pop("before", 0)}]
        chosen = settings(test_datasets=held, allow_overlap=True, **changes)
        folder = bench.place.run_folder / bench.do("prepare", chosen)["prepared"].path
        return str(verified(folder, None)["held_out_sha256"])

    control: dict[str, Any] = {"datasets": styles, **CHANGES}
    plain = sha256_of(datasets=[{**one, "control_class": 1} for one in styles])
    assert sha256_of(**control) == plain
    others = [sha256_of(**control, **how) for how in ({"held": -1}, {"held": 0}, {"before": 1}, {"before": -1})]
    assert len({plain, *others}) == 5


@pytest.mark.parametrize(("down", "held", "lost"), [("WXYZ" * 9, {}, "[+-]1"), ("ABCD", {"test": True}, "-1")], ids=str)
def test_a_class_of_which_no_text_is_left_is_refused_as_one_that_no_dataset_has(
    bench: Bench, settings: Make, tmp_path: Path, down: str, held: dict[str, bool], lost: str
) -> None:
    """Row C14: a file of each class, of which one is held out, or fills no sequence."""
    texts = {"up": "abcd" * 9, "down": down, "test": "efgh" * 9}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    datasets = {name: {"path": str(tmp_path / f"{name}.txt"), "type": "document"} for name in texts}
    chosen = settings(
        datasets=[datasets["up"], {**datasets["down"], "control_class": -1}], sequence_len=16, val_set_size=1,
        test_datasets=[datasets[name] for name in held], **CHANGES,
    )  # fmt: skip
    with pytest.raises(UserError, match=rf"datasets: no token of control_class {lost} is left to train on; name more"):
        bench.do("prepare", chosen)


def bench_ids(text: str) -> list[int]:
    from tests.trainer import tiny

    return list(tiny.tokenizer()(text, add_special_tokens=False)["input_ids"])
