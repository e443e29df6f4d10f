"""Validator and evaluator: they recompute everything, believe nothing, and measure the bare base once."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer import bases
from trainer.data.prepared import HELD_OUT, read_rows
from trainer.errors import UserError
from trainer.heldout import held_out_loss
from trainer.loading import load_adapter

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


@pytest.fixture
def given(bench: Bench, settings: Make) -> dict[str, object]:
    """A trained stream, as a validator is assigned it."""
    prepared = bench.do("prepare", settings())["prepared"].path
    trained = bench.do("train", settings(), prepared=prepared)["trained"]
    return {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}


def test_a_better_adapter_passes_with_both_losses(bench: Bench, settings: Make, given: dict[str, object]) -> None:
    verdict = bench.do("validate", settings(), **given)["verdict"]
    assert (verdict.result, verdict.sha256) == ("SUCCESS", given["sha256"])
    assert verdict.heldout < verdict.base_heldout
    strict = bench.do("validate", settings(max_heldout_ratio=0.01), **given)["verdict"]
    assert strict.result == "WARNING"
    assert "above max_heldout_ratio 0.01" in strict.why
    honest = bench.do("validate", settings(), **given, heldout=verdict.heldout)["verdict"]
    boastful = bench.do("validate", settings(), **given, heldout=verdict.heldout - 0.5)["verdict"]
    assert (honest.result, boastful.result) == ("SUCCESS", "WARNING")
    assert "but its maker said" in boastful.why


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("other hash", "has sha256"),
        ("nan", "is not finite"),
        ("torn", "is torn"),
        ("missing", "is missing"),
        ("bin instead", "is missing"),
        ("pickled", "is no safetensors file"),
        ("config", "cannot be read"),
        ("rank", "says rank 99"),
        ("half", "has no B that fits it"),
    ],
)
def test_a_checkpoint_that_is_not_fit_fails(
    bench: Bench, settings: Make, given: dict[str, object], damage: str, words: str
) -> None:
    folder = bench.place.run_folder / str(given["checkpoint"])
    path, sha256 = folder / "adapter_model.safetensors", given["sha256"]
    match damage:
        case "other hash":
            sha256 = "0" * 64
        case "nan":
            tensors = load_file(path)
            next(iter(tensors.values())).view(-1)[0] = torch.nan
            save_file(tensors, path)
        case "torn":
            path.write_bytes(path.read_bytes()[:-4])
        case "missing":
            path.unlink()
        case "bin instead":
            path.rename(folder / "adapter_model.bin")
        case "pickled":
            path.write_bytes(pickle.dumps(Opened(str(folder / "opened"))))
        case "config":
            (folder / "adapter_config.json").write_text("{")
        case "rank":
            config = json.loads((folder / "adapter_config.json").read_text())
            (folder / "adapter_config.json").write_text(json.dumps({**config, "r": 99}))
        case "half":
            tensors = load_file(path)
            save_file({name: value for name, value in tensors.items() if ".lora_B." not in name}, path)
    if damage in ("nan", "torn", "half", "pickled"):
        from trainer.whole import sha256_of

        sha256 = sha256_of(path)
    verdict = bench.do("validate", settings(), **{**given, "sha256": sha256})["verdict"]
    assert verdict.result == "FAIL"
    assert words in verdict.why
    assert not (folder / "opened").exists()


class Opened:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def test_an_adapter_is_loaded_from_safetensors_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    for name in ("adapter_model.bin", "adapter_model.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Opened(str(tmp_path / "opened"))))
        with pytest.raises(UserError, match=r"has no adapter_model\.safetensors"):
            load_adapter(None, tmp_path)
    assert not (tmp_path / "opened").exists()


def test_a_base_with_pickled_weights_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Opened(str(tmp_path / "opened"))))
    with pytest.raises(UserError, match=r"convert \.bin files to safetensors"):
        bases.shards_of(tmp_path)
    assert not (tmp_path / "opened").exists()


def test_scores_agree_with_the_verdict_and_people_can_read_the_answers(
    bench: Bench, settings: Make, given: dict[str, object]
) -> None:
    verdict = bench.do("validate", settings(), **given)["verdict"]
    score = bench.do("evaluate", settings(), **given)["score"]
    assert (score.heldout, score.base_heldout, score.rows) == (verdict.heldout, verdict.base_heldout, 12)
    assert (score.exact, score.base_exact) == (0.0, 0.0)
    answers = [
        json.loads(line) for line in (bench.place.stream_folder("one") / "answers.jsonl").read_text().splitlines()
    ]
    assert len(answers) == 4
    assert {tuple(answer) for answer in answers} == {("prompt", "expected", "base", "adapter")}
    assert all(int(answer["expected"]) == 2 * int(answer["prompt"].split()[-2]) for answer in answers)
    other = bench.do("evaluate", settings(eval_rows=0), **given)["score"]
    assert other.exact is None
    assert other.rows_sha256 != score.rows_sha256


def test_the_bare_base_is_measured_once_for_all_streams(
    bench: Bench, settings: Make, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.do("validate", settings(), **given)["verdict"]
    measured: list[object] = []

    def counting(model: torch.nn.Module, *rest: object) -> float:
        measured.append(model)
        return held_out_loss(model, *rest)

    monkeypatch.setattr("trainer.roles.validate.held_out_loss", counting)
    second = bench.do("validate", settings(learning_rate=1e-3), **given)["verdict"]  # another stream of the same shape
    assert second.base_heldout == first.base_heldout
    assert len(measured) == 1  # the adapter
    quantised = bench.do("validate", settings(adapter="qlora"), **given)["verdict"]
    assert quantised.base_heldout != first.base_heldout


def test_held_out_loss_is_the_mean_over_tokens_whatever_the_batches(
    bench: Bench, settings: Make, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    prepared = bench.do("prepare", settings())["prepared"].path
    rows = list(read_rows(bench.place.run_folder / prepared / HELD_OUT))
    model = AutoModelForCausalLM.from_pretrained(base)
    nats = tokens = 0.0
    for row in rows:  # transformers' own loss, one row at a time, no padding
        loss = model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss
        nats, tokens = nats + float(loss.detach()) * row.supervised, tokens + row.supervised
    assert held_out_loss(model, rows, lambda: None) == pytest.approx(nats / tokens, abs=1e-5)
    monkeypatch.setattr("trainer.heldout.BATCH_TOKENS", 1)
    assert held_out_loss(model, rows, lambda: None) == pytest.approx(nats / tokens, abs=1e-5)
