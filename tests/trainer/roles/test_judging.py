"""Validator and evaluator: they recompute everything, believe nothing, and measure the bare base once."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from swarm import figures
from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER, ADAPTER_CONFIG, adapter_sha256, sha256_of
from tests.trainer.conftest import Bench
from toon import decode
from trainer import bases, whole
from trainer.data.prepared import HELD_OUT, TRAIN, VALIDATION, RowFile, read_rows
from trainer.judge.heldout import held_out_figures, held_out_loss, row_losses
from trainer.lease import Lease
from trainer.loading import load_adapter

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


def a_trained(bench: Bench, chosen: StreamSettings) -> dict[str, object]:
    """A trained stream, as a validator is assigned it."""
    prepared = bench.do("prepare", chosen)["prepared"].path
    trained = bench.do("train", chosen, prepared=prepared)["trained"]
    return {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}


@pytest.fixture
def given(bench: Bench, settings: Make) -> dict[str, object]:
    return a_trained(bench, settings())


def folder_of(bench: Bench, given: dict[str, object]) -> Path:
    return bench.place.run_folder / str(given["checkpoint"])


def test_a_better_adapter_passes_with_both_losses(bench: Bench, settings: Make, given: dict[str, object]) -> None:
    verdict = bench.do("validate", settings(), **given)["verdict"]
    assert (verdict.result, verdict.sha256) == ("SUCCESS", given["sha256"])
    assert verdict.figures["eval_loss"] < verdict.figures["base_eval_loss"]
    strict = bench.do("validate", settings(max_heldout_ratio=0.01), **given)["verdict"]
    assert strict.result == "WARNING"
    assert "above max_heldout_ratio 0.01" in strict.why
    honest = bench.do("validate", settings(), **given, figures=verdict.figures)["verdict"]
    better = {"eval_loss": verdict.figures["eval_loss"] - 0.5}
    boastful = bench.do("validate", settings(), **given, figures=better)["verdict"]
    assert (honest.result, boastful.result) == ("SUCCESS", "WARNING")
    assert "but its maker stated" in boastful.why


def test_held_out_rows_that_were_trained_on_mark_the_verdict(bench: Bench, settings: Make) -> None:
    same = settings().model_dump()["datasets"]
    chosen = settings(test_datasets=same, allow_overlap=True)
    verdict = bench.do("validate", chosen, **a_trained(bench, chosen))["verdict"]
    assert verdict.result == "WARNING"
    assert verdict.why.startswith("60 training rows equal held-out rows (allow_overlap: true)")


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True, "lora_alpha": 8.5},
        {"use_rslora": True, "lora_dropout": 0.1},
        {"adapter": "qlora"},
        {"lora_target_modules": ["v_proj", "q_proj"], "lora_r": 2},
        {"lora_target_modules": r".*\.1\.mlp\..*_proj"},
    ],
    ids=str,
)
def test_an_honest_adapter_of_every_kind_is_fit(bench: Bench, settings: Make, changes: dict[str, object]) -> None:
    chosen = settings(**changes)
    assert bench.do("validate", chosen, **a_trained(bench, chosen))["verdict"].result == "SUCCESS"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("other hash", "have sha256"),
        ("config was edited", "have sha256"),
        ("no weights", "adapter_model.safetensors is missing"),
        ("no config", "adapter_config.json is missing"),
        ("bin instead", "adapter_model.safetensors is missing"),
    ],
)
def test_files_that_are_not_those_that_were_promised_fail(
    bench: Bench, settings: Make, given: dict[str, object], damage: str, words: str
) -> None:
    folder, sha256 = folder_of(bench, given), given["sha256"]
    weights, config = (folder / name for name in (ADAPTER, ADAPTER_CONFIG))
    match damage:
        case "other hash":
            sha256 = "0" * 64
        case "config was edited":
            config.write_text(config.read_text().replace('"lora_alpha": 16', '"lora_alpha": 160'))
        case "no weights":
            weights.unlink()
        case "no config":
            config.unlink()
        case "bin instead":
            weights.rename(folder / "adapter_model.bin")
    found = adapter_sha256(folder) if weights.exists() and config.exists() else sha256
    verdict = bench.do("validate", settings(), **{**given, "sha256": sha256})["verdict"]
    assert (verdict.result, verdict.sha256) == ("FAIL", found)
    assert words in verdict.why
    with pytest.raises(UserError, match=r"its maker said|is missing"):
        bench.do("evaluate", settings(), **{**given, "sha256": sha256})


def handed_in(bench: Bench, given: dict[str, object], weights: bytes | None, config: str | None) -> dict[str, object]:
    """The same checkpoint from a maker who promises just what is in these files."""
    folder = folder_of(bench, given)
    other = folder.with_name("other")
    shutil.rmtree(other, ignore_errors=True)
    shutil.copytree(folder, other)
    if weights is not None:
        (other / ADAPTER).write_bytes(weights)
    if config is not None:
        (other / ADAPTER_CONFIG).write_text(config)
    return {**given, "checkpoint": bench.place.relative(other), "sha256": adapter_sha256(other)}


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_tensors_that_are_not_those_of_such_an_adapter_fail(bench: Bench, settings: Make, kind: str) -> None:
    given = a_trained(bench, settings(adapter=kind))
    tensors = load_file(folder_of(bench, given) / ADAPTER)
    first = next(iter(tensors))

    def with_first(value: torch.Tensor) -> bytes:
        return save({**tensors, first: value})

    layers = "base_model.model.model.layers"
    damages = [
        (with_first(torch.full_like(tensors[first], torch.nan)), f"{first} is not finite"),
        (with_first(torch.full_like(tensors[first], 1e300, dtype=torch.float64)), f"{first} is not finite"),  # in fp32
        (with_first(tensors[first].to(torch.int8)), f"{first} holds torch.int8, no floats"),
        (save(tensors)[:-4], "is no whole safetensors file"),
        (pickle.dumps(Opened(str(bench.place.run_folder / "opened"))), "is no whole safetensors file"),
        (save({k: v for k, v in tensors.items() if ".layers.1." in k}), f"lacks {layers}.0."),
        (save({k: v for k, v in tensors.items() if ".lora_A." in k}), f"lacks {layers}.0.mlp.down_proj.lora_B.weight"),
        (
            save({k.replace("layers", "floors"): v for k, v in tensors.items()}),
            "floors.0.mlp.down_proj.lora_A.weight, ",
        ),
        (save({**tensors, "any\n" * 999: tensors[first].clone()}), "holds any any any"),
        (save({**tensors, "more.lora_A.weight": tensors[first].clone()}), "holds more.lora_A.weight, which the stream"),
        (
            save({k: v[:4] if ".lora_A." in k else v[:, :4].contiguous() for k, v in tensors.items()}),
            "has shape [4, 128], the stream's settings make it [8, 128]",
        ),
    ]
    for weights, words in damages:
        verdict = bench.do("validate", settings(adapter=kind), **handed_in(bench, given, weights, None))["verdict"]
        assert verdict.result == "FAIL", words
        assert words in verdict.why
        assert len(verdict.why) <= 300 and "\n" not in verdict.why
    assert not (bench.place.run_folder / "opened").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 99),
        ("lora_alpha", 1600),
        ("lora_alpha", "x"),
        ("use_dora", True),
        ("use_rslora", True),
        ("target_modules", ["q_proj"]),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 1600}),
        ("auto_mapping", {"base_model_class": "A", "parent_library": "b"}),
        ("layers_to_transform", [0]),
        ("trainable_token_indices", [1, 2]),
        ("fan_in_fan_out", True),
        ("task_type", "SEQ_CLS"),
        ("base_model_name_or_path", "another/base"),
        ("revision", "v2"),
        ("a_field_of_tomorrow", True),
    ],
)
def test_a_config_that_is_not_what_the_stream_asks_for_fails(
    bench: Bench, settings: Make, given: dict[str, object], field: str, value: object
) -> None:
    config = json.loads((folder_of(bench, given) / ADAPTER_CONFIG).read_text())
    forged = handed_in(bench, given, None, json.dumps({**config, field: value}))
    verdict = bench.do("validate", settings(), **forged)["verdict"]
    assert verdict.result == "FAIL"
    assert f"adapter_config.json says {field} {value!r}, the stream's settings make it" in verdict.why


def test_a_config_that_peft_cannot_read_fails(bench: Bench, settings: Make, given: dict[str, object]) -> None:
    config = json.loads((folder_of(bench, given) / ADAPTER_CONFIG).read_text())
    damages = [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        (json.dumps({**config, "\ud800": 1}), r"says \ud800 1, the stream"),  # half a pair, which no log can hold
        ("[]", "describes no adapter"),
        (json.dumps({**config, "peft_type": "IA3"}), "says peft_type 'IA3', the stream's settings make it 'LORA'"),
        (json.dumps({**config, "r": 8.0}), "does not fit its base (TypeError"),  # equal to 8, and no size of a tensor
    ]
    for text, words in damages:
        verdict = bench.do("validate", settings(), **handed_in(bench, given, None, text))["verdict"]
        assert verdict.result == "FAIL", words
        assert words in verdict.why


def test_an_adapter_of_another_peft_is_fit(bench: Bench, settings: Make, given: dict[str, object]) -> None:
    config = json.loads((folder_of(bench, given) / ADAPTER_CONFIG).read_text())
    del config["lora_bias"]  # which an older one did not know
    forged = handed_in(bench, given, None, json.dumps({**config, "peft_version": "0.1", "inference_mode": False}))
    assert bench.do("validate", settings(), **forged)["verdict"].result == "SUCCESS"


def test_an_adapter_whose_bases_folder_was_moved_is_fit(bench: Bench, settings: Make, given: dict[str, object]) -> None:
    config = json.loads((folder_of(bench, given) / ADAPTER_CONFIG).read_text())
    moved = f"/where/it/was/{Path(config['base_model_name_or_path']).name}"
    forged = handed_in(bench, given, None, json.dumps({**config, "base_model_name_or_path": moved}))
    assert bench.do("validate", settings(), **forged)["verdict"].result == "SUCCESS"


def test_hash_and_figures_are_of_the_same_bytes_whoever_writes_in_between(
    bench: Bench, settings: Make, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = folder_of(bench, given) / ADAPTER
    handed = weights.read_bytes()
    with monkeypatch.context() as meanwhile:  # the base's rows are being measured
        zeros = save({name: torch.zeros_like(value) for name, value in load_file(weights).items()})
        meanwhile.setattr(Lease, "progress", lambda lease: weights.write_bytes(zeros))
        disturbed = bench.do("validate", settings(), **given)["verdict"]
    assert weights.read_bytes() == zeros
    weights.write_bytes(handed)
    undisturbed = bench.do("validate", settings(), **given)["verdict"]
    assert disturbed.facts() == {**undisturbed.facts(), "tok": disturbed.tok}


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
    with pytest.raises(UserError, match=r"save it again with save_pretrained, which writes safetensors"):
        bases.weights_of(tmp_path)
    assert not (tmp_path / "opened").exists()


def test_scores_agree_with_the_verdict_and_people_can_read_the_answers(
    bench: Bench, settings: Make, given: dict[str, object]
) -> None:
    verdict = bench.do("validate", settings(), **given)["verdict"]
    score = bench.do("evaluate", settings(), **given)["score"]
    assert {name: score.figures[name] for name in verdict.figures} == verdict.figures
    assert list(score.figures) == [
        *("eval_loss", "base_eval_loss"), *("exact_match", "base_exact_match"), *("ended", "base_ended")
    ]  # fmt: skip
    assert score.rows == 12
    answers = [
        json.loads(line) for line in (bench.place.stream_folder("one") / "samples.jsonl").read_text().splitlines()
    ]
    assert len(answers) == 4
    assert answers == decode((bench.place.stream_folder("one") / "samples.toon").read_text())
    scores = {"exact_match", "base_exact_match", "ended", "base_ended"}
    assert all(answer.keys() == {"prompt", "expected", "base", "adapter"} | scores for answer in answers)
    assert all(int(answer["expected"]) == 2 * int(answer["prompt"].split()[-2]) for answer in answers)
    other = bench.do("evaluate", settings(eval_rows=0), **given)["score"]
    assert other.figures.keys() == {"eval_loss", "base_eval_loss"}
    assert other.rows_sha256 != score.rows_sha256


@pytest.mark.parametrize("role", ["validate", "evaluate"])
@pytest.mark.parametrize("sealed_anew", [False, True])
def test_rows_that_are_not_those_of_the_log_are_not_judged_by(
    bench: Bench, settings: Make, given: dict[str, object], role: str, sealed_anew: bool
) -> None:
    rows = bench.place.run_folder / str(given["prepared"])
    facts = whole.verify(rows)
    with RowFile(rows / HELD_OUT) as easy:
        easy.add(next(read_rows(rows / TRAIN)))
    if sealed_anew:
        whole.seal(rows, facts)
    words = "was sealed anew" if sealed_anew else r"held_out\.arrow of .* is not what was sealed"
    with pytest.raises(UserError, match=rf"^prepared/{rows.name}: .*{words}.*put it back as it was"):
        bench.do(role, settings(), **given)


def test_the_bare_base_is_measured_once_for_all_streams_and_its_figures_lie_nowhere(
    bench: Bench, settings: Make, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(path.name for path in (bench.place.run_folder / str(given["prepared"])).iterdir())
    first = bench.do("validate", settings(), **given)["verdict"]
    measured: list[object] = []

    def counting(model: torch.nn.Module, *rest: object) -> object:
        measured.append(model)
        return row_losses(model, *rest)

    monkeypatch.setattr("trainer.judge.heldout.row_losses", counting)
    second = bench.do("validate", settings(learning_rate=1e-3), **given)["verdict"]  # another stream of the same shape
    score = bench.do("evaluate", settings(learning_rate=1e-3), **given)["score"]
    assert len({event.figures["base_eval_loss"] for event in (first, second, score)}) == 1
    assert len(measured) == 1  # the adapter, for its verdict: the same files have the same losses in their scores
    assert sorted(path.name for path in (bench.place.run_folder / str(given["prepared"])).iterdir()) == files
    quantised = bench.do("validate", settings(adapter="qlora"), **given)["verdict"]
    assert quantised.figures["base_eval_loss"] != first.figures["base_eval_loss"]


def test_a_base_that_has_changed_is_measured_anew_and_one_without_a_figure_is_no_baseline(
    bench: Bench, settings: Make, base: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(base, tmp_path / "base")
    chosen = settings(base_model=str(mine))
    given = a_trained(bench, chosen)
    before = bench.do("validate", chosen, **given)["verdict"].figures["base_eval_loss"]
    tensors = load_file(mine / "model.safetensors")
    for scale in (2.0, torch.nan):
        scaled = {**tensors, "model.norm.weight": tensors["model.norm.weight"] * scale}
        (mine / "model.safetensors").write_bytes(save(scaled, {"format": "pt"}))
        if scale == 2.0:
            assert bench.do("validate", chosen, **given)["verdict"].figures["base_eval_loss"] != before
    with pytest.raises(UserError, match=r"^base_model: the bare base's held-out loss is not finite"):
        bench.do("validate", chosen, **given)


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
    with torch.no_grad():
        guesses = [model(input_ids=torch.tensor([row.ids])).logits[0].argmax(-1).tolist() for row in rows]
    hits = sum(
        g == label
        for row, own in zip(rows, guesses, strict=True)
        for g, label in zip(own, row.labels[1:], strict=False)
    )
    assert held_out_figures(row_losses(model, rows, lambda: None))["eval_token_accuracy"] == pytest.approx(
        hits / tokens, abs=0.01
    )
    monkeypatch.setattr("trainer.judge.heldout.judged_tokens", lambda on_gpu: 1)
    assert held_out_loss(model, rows, lambda: None) == pytest.approx(nats / tokens, abs=1e-5)


def test_drawn_answers_are_the_same_for_the_same_seed_and_others_for_another(
    bench: Bench, settings: Make, given: dict[str, object]
) -> None:
    def answers(**how: object) -> list[str]:
        bench.do("evaluate", settings(**how), **given)
        lines = (bench.place.stream_folder("one") / "samples.jsonl").read_text().splitlines()
        return [json.loads(line)["adapter"] for line in lines]

    drawn = {"temperature": 1.5, "eval_seed": 1}
    assert 2 < max(map(len, answers(**drawn))) <= 6, "a token is a byte here"
    assert answers(**drawn) == answers(**drawn) != answers(**{**drawn, "eval_seed": 2})
    assert answers(temperature=1.5, top_p=1e-6) == answers()  # of one token there is nothing to draw


def test_every_metric_that_is_named_is_measured_of_adapter_and_base(
    bench: Bench, settings: Make, given: dict[str, object]
) -> None:
    wanted = [name for name in figures.measurable() if name != "json_schema" and figures.of(name).of != "retention"]
    score = bench.do("evaluate", settings(metrics=wanted), **given)["score"]
    assert set(score.figures) == {f"{b}{name}" for name in ("eval_loss", *wanted) for b in ("", "base_")}
    assert score.figures["perplexity"] == pytest.approx(math.exp(score.figures["eval_loss"]), rel=1e-4)
    scores = decode((bench.place.stream_folder("one") / "scores.toon").read_text())
    nats = [(row["adapter"] * row["weight"], row["weight"]) for row in scores["eval_loss"]]
    assert sum(n for n, _ in nats) / sum(w for _, w in nats) == pytest.approx(score.figures["eval_loss"], abs=1e-5)
    mean = sum(row["base"] for row in scores["rouge_l"]) / 4
    assert mean == pytest.approx(score.figures["base_rouge_l"], abs=1e-5)
    assert score.scores_sha256 == sha256_of(bench.place.stream_folder("one") / "scores.toon")[:16]


RETENTION = ["retention_loss", "kl_to_base", "skills", "skills_lost", "skills_gained"]


def test_an_adapter_that_changes_nothing_has_kept_everything_and_a_trained_one_has_drifted(
    bench: Bench, settings: Make, given: dict[str, object]
) -> None:
    tensors = load_file(folder_of(bench, given) / ADAPTER)
    nothing = save({name: torch.zeros_like(value) if ".lora_B." in name else value for name, value in tensors.items()})
    kept = bench.do("evaluate", settings(metrics=RETENTION), **handed_in(bench, given, nothing, None))["score"].figures
    assert kept["retention_loss"] == pytest.approx(kept["base_retention_loss"], abs=1e-5)
    assert (kept["kl_to_base"], kept["skills_lost"], kept["skills_gained"]) == (0, 0, 0)
    drifted = bench.do("evaluate", settings(metrics=RETENTION), **given)["score"].figures
    assert drifted["kl_to_base"] > 0.01
    assert drifted["retention_loss"] != pytest.approx(drifted["base_retention_loss"], abs=1e-3)
    assert drifted["skills"] == pytest.approx(
        drifted["base_skills"] + (drifted["skills_gained"] - drifted["skills_lost"]) / 16, abs=1e-3
    )


def test_steps_are_chosen_on_rows_of_their_own_and_judged_on_others(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    files = {}
    for name, numbers in {"train": range(40), "val": range(50, 56), "test": range(60, 70)}.items():
        files[name] = tmp_path / f"{name}.jsonl"
        rows = [{"prompt": f"double {n}", "completion": str(2 * n)} for n in numbers]
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {name: [{"path": str(path), "type": "prompt_completion"}] for name, path in files.items()}
    chosen = settings(datasets=data["train"], test_datasets=data["test"], val_datasets=data["val"], eval_steps=2)
    prepared = bench.do("prepare", chosen)["prepared"]
    assert (prepared.rows, prepared.held_out) == (40, 10)
    folder = bench.place.run_folder / prepared.path
    assert len(list(read_rows(folder / VALIDATION))) == 6
    trained = bench.do("train", chosen, prepared=prepared.path)["trained"]
    stated = bench.metric_rows()[-1].figures | {
        name: value for row in bench.metric_rows() for name, value in row.figures.items() if name == "eval_loss"
    }
    given = {"prepared": prepared.path, "checkpoint": trained.path, "sha256": trained.sha256}
    honest = bench.do("validate", chosen, **given, figures={"eval_loss": stated["eval_loss"]})["verdict"]
    assert honest.result == "SUCCESS"  # what its maker stated is of the validation rows, and is compared with those
    assert honest.figures["eval_loss"] != pytest.approx(stated["eval_loss"], abs=1e-4)
    assert bench.do("evaluate", chosen, **given)["score"].rows == 10
