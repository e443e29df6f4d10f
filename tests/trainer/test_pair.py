"""Rows D01 to D04, D17, D20, D21: two models in one stream, with one step counter, one checkpoint, two losses and an arbiter between them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm.config import load
from swarm.errors import UserError, UserErrors
from swarm.settings import StreamSettings
from swarm.weights import adapter_sha256
from tests.trainer.conftest import Bench
from tests.trainer.encoders import FAMILIES, WORDS, save_encoder, save_family
from trainer.data.tokens import Tokens
from trainer.engines.pair import Side, steps_of
from trainer.loop.batches import Batches

HOT = WORDS[:3]
ROW_TYPES = {
    "classify": "labelled, text: text, label: label", "mlm": "text, text: text",
    "contrastive": "prompt_completion, prompt: text, completion: partners",
}  # fmt: skip
Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


@pytest.fixture(scope="module")
def duo(base: Path, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("duo")

    def make(*overrides: str, **more: Any) -> StreamSettings:
        data = [{"path": str(rows_file), "type": "prompt_completion"}]
        common = {
            "method": "duo", "learning_rate": 5e-3, "warmup_ratio": 0, "max_steps": 4, "save_steps": 2, "sequence_len": 64, "val_set_size": 12,
            "lora_dropout": 0.1, "eval_rows": 0, "micro_batch_size": 4, "optimizer": "duo", "duo_mode": "split", "eval_steps": 4,
            **more,
        }  # fmt: skip
        models = {
            "encoder": {
                "base_model": str(base),
                "objective": "sft",
                "datasets": data,
                "gradient_accumulation_steps": 2,
            },
            "decoder": {"base_model": str(base), "datasets": data, "lora_r": 4},
        }
        path = folder / "duo.json"
        path.write_text(json.dumps({"name": "duo", "streams": {"one": {**common, "models": models}}}))
        return load(path.rename(path.with_suffix(".yaml")), list(overrides), cwd=folder).run.streams["one"]

    return make


@pytest.fixture(scope="module")
def whole(duo: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, Any]:
    bench = Bench(tmp_path_factory.mktemp("whole"))
    return bench, bench.trained(duo("arbiter=loss_slope", "arbiter_temperature=0.001"))["trained"]


def rows(bench: Bench, kind: str = "train") -> list[dict[str, float]]:
    return [row.figures for row in bench.metric_rows() if row.kind == kind]


def weights(folder: Path, model: str) -> dict[str, torch.Tensor]:
    return load_file(folder / model / "adapter_model.safetensors")


def test_a_model_takes_from_its_stream_what_it_does_not_say(duo: Make) -> None:
    parts = duo("learning_rate=1e-4", "models.decoder.learning_rate=3e-5").parts
    assert [part.learning_rate for part in parts.values()] == [1e-4, 3e-5]
    assert [part.lora_r for part in parts.values()] == [8, 4]  # type: ignore[attr-defined]
    assert [part.duo_role for part in parts.values()] == ["encoder", "decoder"]  # type: ignore[attr-defined]


def test_what_is_typed_for_a_stream_is_for_both_models_and_what_is_typed_for_a_model_for_it_alone(duo: Make) -> None:
    assert [part.lora_r for part in duo("lora_r=3").parts.values()] == [3, 3]  # type: ignore[attr-defined]
    parts = duo("lora_r=3", "models.encoder.lora_r=5").parts
    assert [part.lora_r for part in parts.values()] == [5, 3]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("models.encoder.loss=dft", "learns by sft with settings that one of two models cannot have"),
        ("models.encoder.lora_rr=3", "unknown setting"),
        ("models.third.lora_r=3", "third"),
        ("models.encoder.objective=duo", "a model of a stream is one model, not duo"),
        ("models.decoder.packing=bfd", "has `packing`"),
        ("arbiter=alternate:0", "expected none, round_robin"),
        ("engine=trl", "trl trains streams of one model, and duo has 2"),
    ],
)
def test_what_cannot_be_is_a_mistake_of_the_config(duo: Make, override: str, what: str) -> None:
    with pytest.raises(UserErrors, match=what):
        duo(override)


def test_mmt_is_the_arbiter_of_loss_slopes_unless_another_is_named(duo: Make) -> None:
    """D16."""
    chosen: list[Any] = [duo(*words) for words in ((), ("use_mmt=true",), ("use_mmt=true", "arbiter=grad_norm"))]
    assert [settings.arbitration for settings in chosen] == ["none", "loss_slope", "grad_norm"]


def test_both_models_are_trained_in_one_run_and_judged_each_on_its_own(duo: Make, whole: tuple[Bench, Any]) -> None:
    """D01, D04."""
    bench, trained = whole
    found = rows(bench)
    assert len(found) == 4
    for row in found:
        assert row["loss"] == pytest.approx((row["encoder_loss"] + row["decoder_loss"]) / 2, abs=1e-5)
    held_out = rows(bench, "eval")[-1]
    assert held_out["eval_loss"] == pytest.approx((held_out["encoder_eval_loss"] + held_out["decoder_eval_loss"]) / 2)
    folder = bench.place.run_folder / trained.path
    assert adapter_sha256(folder) == trained.sha256
    assert {len(weights(folder, "encoder")[name]) for name in weights(folder, "encoder") if "lora_A" in name} == {8}
    prepared = next(iter(bench.prepared))
    verdict = Bench.do(bench, "validate", duo(), prepared=prepared, checkpoint=trained.path, sha256=trained.sha256)[
        "verdict"
    ]
    assert verdict.result == "SUCCESS"
    assert verdict.figures["encoder_eval_loss"] < verdict.figures["base_encoder_eval_loss"]
    assert verdict.figures["decoder_eval_loss"] < verdict.figures["base_decoder_eval_loss"]
    assert verdict.figures["encoder_eval_loss"] == pytest.approx(held_out["encoder_eval_loss"], abs=1e-3)
    (folder / "decoder" / "adapter_model.safetensors").write_bytes(b"other")
    changed = Bench.do(bench, "validate", duo(), prepared=prepared, checkpoint=trained.path, sha256=trained.sha256)
    assert changed["verdict"].result == "FAIL"


def of_encoder(encoder: Path, texts: Path, objective: str, steps: int) -> list[str]:
    """Overrides: what it learns of texts that are written there."""
    partners = dict(zip(WORDS, [*WORDS[6:], *WORDS[:6]], strict=True))
    lines = [
        f"{' '.join(some)},{'hot' if some[0] in HOT else 'cold'},{' '.join(partners[word] for word in some)}"
        for some in product(WORDS[:6], WORDS[6:9], WORDS[9:])
    ]
    texts.write_text("\n".join(["text,label,partners", *lines]) + "\n")
    own = ["models.encoder.labels=[cold, hot]"] if objective == "classify" else []
    return [
        f"models.encoder.base_model={encoder}", f"models.encoder.objective={objective}", f"max_steps={steps}", f"save_steps={steps}",
        f"eval_steps={steps}", f"models.encoder.datasets=[{{path: {texts}, type: {ROW_TYPES[objective]}}}]", "models.encoder.learning_rate=1e-2",
        "models.encoder.sequence_len=32", "models.encoder.eval_rows=12", *own,
    ]  # fmt: skip


@pytest.mark.parametrize("objective", ["classify", "mlm", "contrastive"])
def test_an_encoder_learns_its_own_objective_beside_a_decoder(
    duo: Make, bench: Bench, tmp_path: Path, objective: str
) -> None:
    """D01, D02: BERT's kind with AdamW, a decoder with Lion."""
    settings = duo(*of_encoder(save_encoder(tmp_path / "bert"), tmp_path / "texts.csv", objective, steps=60))
    trained = bench.trained(settings)["trained"]
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", settings, **given)["verdict"]
    assert verdict.result == "SUCCESS", verdict
    for model in ("encoder", "decoder"):
        assert verdict.figures[f"{model}_eval_loss"] < verdict.figures[f"base_{model}_eval_loss"]
    score = bench.do("evaluate", settings, **given)["score"]
    assert ("encoder_accuracy" in score.figures) == (objective == "classify")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["classify", "contrastive"])
def test_an_encoder_of_another_family_learns_beside_a_decoder_that_it_is_tied_to(
    duo: Make, bench: Bench, tmp_path: Path, family: str, objective: str
) -> None:
    """D01, D38."""
    encoder = save_family(tmp_path / family, family)
    settings = duo("tie_tokens=2", *of_encoder(encoder, tmp_path / "texts.csv", objective, steps=120))
    trained = bench.trained(settings)["trained"]
    given = {"prepared": next(iter(bench.prepared)), "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", settings, **given)["verdict"]
    assert verdict.result == "SUCCESS", verdict
    assert verdict.figures["encoder_eval_loss"] < verdict.figures["base_encoder_eval_loss"]


def test_the_shipped_pair_trains_on_the_embedded_base(bench: Bench) -> None:
    """D07."""
    few = [f"models.{model}.datasets.0.limit=12" for model in ("encoder", "decoder")]
    configs = Path(__file__).parents[2] / "configs"
    [settings] = load(
        configs / "duo.yaml", ["max_steps=2", "eval_steps=2", "save_steps=2", *few], cwd=configs.parent
    ).run.streams.values()
    assert bench.trained(settings)["trained"].step == 2


@pytest.mark.parametrize(("adapter", "mode"), [("lora", "split"), ("qlora", "blend"), ("lora", "amp")])
def test_it_goes_on_from_a_checkpoint_bit_for_bit(duo: Make, bench: Bench, adapter: str, mode: str) -> None:
    """D01, X03, U07: both bases as they are, or both in NF4; each model's rate is schedule x controller x arbiter."""
    steered = {"kind": "unified", "preset": "absolute", "alpha": 1.0, "beta": 0.0, "multi": 0.5}
    settings = duo("arbiter=grad_norm", f"adapter={adapter}", f"duo_mode={mode}", controller=steered)
    trained = bench.trained(settings)["trained"]
    folder = bench.place.run_folder / trained.path
    before = {model: weights(folder, model) for model in ("encoder", "decoder")}
    losses = rows(bench)
    half = bench.place.relative(folder.with_name("checkpoint-2"))
    again = bench.place.run_folder / bench.trained(settings, resume_from=[half])["trained"].path
    assert again != folder
    for model, kept in before.items():
        assert all(torch.equal(value, kept[name]) for name, value in weights(again, model).items())
    assert [row["loss"] for row in rows(bench)] == [row["loss"] for row in losses[2:]]


def test_a_controller_steers_each_model_by_its_own_loss(duo: Make, bench: Bench) -> None:
    """D21, U07, U21: schedule x controller x arbiter; one of them may be without, and each has its own logs."""
    steered = {
        "kind": "unified",
        "preset": "absolute",
        "alpha": 1.0,
        "beta": 0.0,
        "theta0": 0.01,
        "theta1": 0.99,
        "multi": 0.5,
    }
    bench.trained(duo("models.encoder.controller=none", "arbiter=grad_norm", controller=steered))
    found = rows(bench)
    assert [row["decoder_phi"] for row in found] == pytest.approx(
        [row["decoder_loss"] / (1 + row["decoder_loss"]) for row in found], abs=1e-3
    )
    assert not any("encoder_phi" in row for row in found)
    for model, factor in {"encoder": 1.0, "decoder": 0.5}.items():
        rates = [row[f"{model}_learning_rate"] for row in found]
        weights = [row[f"{model}_weight"] for row in found]
        expected = [5e-3 * (1 - step / 4) * factor * weights[step - 1] for step in (1, 2, 3)]
        assert rates[1:] == pytest.approx(expected, rel=1e-2)
    folder = bench.place.stream_folder("one")
    assert (folder / "decoder/phi_log.csv").read_text().count("\n") == 5
    assert not (folder / "encoder/phi_log.csv").exists()


def test_models_that_take_turns_rest_between_them(duo: Make, bench: Bench) -> None:
    bench.trained(duo("arbiter=alternate:2"))
    found = rows(bench)
    assert ["encoder_grad_norm" in row for row in found] == [True, True, False, False]
    assert ["decoder_grad_norm" in row for row in found] == [False, False, True, True]


def test_the_arbiter_s_weight_is_a_factor_of_the_learning_rate(whole: tuple[Bench, Any]) -> None:
    bench, _ = whole
    lines = (bench.place.stream_folder("one") / "train_log.csv").read_text().splitlines()
    head, *body = [line.split(",") for line in lines]
    table = [dict(zip(head, line, strict=True)) for line in body if line[head.index("kind")] == "train"]
    for before, after in pairwise(table):
        schedule = 5e-3 * (1 - (int(after["step"]) - 1) / 4)
        for model in ("encoder", "decoder"):
            assert float(after[f"{model}_learning_rate"]) == pytest.approx(
                schedule * float(before[f"{model}_weight"]), rel=1e-4
            )
    assert any(abs(float(row["encoder_weight"]) - 1) > 0.001 for row in table[:-1]), "else nothing is shown"


def test_rows_bounds_and_memory_of_the_arbiter_are_those_of_the_settings(
    duo: Make, bench: Bench, rows_file: Path
) -> None:
    """D03: of 48 and 18 rows the shares are 1.45 and .55; where nothing is kept, factors go by the last gradients."""
    fewer = f"models.decoder.datasets=[{{path: {rows_file}, type: prompt_completion, limit: 30}}]"
    bench.trained(duo("arbiter=proportional", "arbiter_min=0.6", "arbiter_max=3", fewer))
    for row in rows(bench):
        assert (row["encoder_weight"], row["decoder_weight"]) == pytest.approx((48 / 33, 0.6), rel=1e-4)
    bench.trained(duo("arbiter=grad_norm", "arbiter_beta=0", "arbiter_min=0.01", "arbiter_max=1.99"))
    for row in rows(bench):
        ratio = row["decoder_grad_norm"] / row["encoder_grad_norm"]
        assert row["encoder_weight"] / row["decoder_weight"] == pytest.approx(ratio, rel=1e-2)


def test_epochs_are_counted_by_the_model_that_has_more_steps_in_one(duo: Make) -> None:
    """D11: 10 and 6 rows in micro-batches of 2 are 5 and 3 steps."""
    batches = [Batches([Tokens([1, 2], [1, 2], 0)] * count, micro_batch_size=2, seed=0) for count in (10, 6)]
    settings = duo().model_copy(update={"max_steps": None, "num_epochs": 2.5})
    assert steps_of(settings, batches) == 13
    assert steps_of(settings.model_copy(update={"max_steps": 4}), batches) == 4


@pytest.mark.parametrize("model", ["encoder", "decoder"])
def test_broken_rows_of_one_model_are_named_by_their_place_and_nothing_half_written_stays(
    duo: Make, bench: Bench, tmp_path: Path, model: str
) -> None:
    """D01."""
    path = tmp_path / "broken.jsonl"
    rows = [{"prompt": f"double {n}", "completion": str(2 * n)} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:2], {"prompt": "double 2"}, *rows[3:]]))
    with pytest.raises(UserError, match=r"broken.jsonl:3: no column 'completion'"):
        bench.do("prepare", duo(f"models.{model}.datasets=[{{path: {path}, type: prompt_completion}}]"))
    assert not list((bench.place.run_folder / "prepared").glob(".*"))


@pytest.mark.parametrize("mode", ["amp", "split"])
def test_amp_passes_over_a_gradient_that_is_not_finite_and_without_it_the_model_is_named(
    duo: Make, bench: Bench, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """D10: the encoder's second gradient is spoiled."""
    plain = Side.gather

    def spoiled(side: Side) -> None:
        plain(side)
        if side.stream.name == "encoder" and side.stream.step == 1:
            side.adapter.parameters()[0].grad.fill_(math.inf)  # type: ignore[union-attr]

    monkeypatch.setattr(Side, "gather", spoiled)
    settings = duo(f"duo_mode={mode}", "arbiter=grad_norm")
    if mode == "split":
        with pytest.raises(UserError, match="encoder: gradient was not finite at step 2"):
            bench.trained(settings)
        return
    assert bench.trained(settings)["trained"].step == 4
    assert [row["encoder_learning_rate"] > 0 for row in rows(bench)] == [True, False, True, True]
    assert [row["decoder_learning_rate"] > 0 for row in rows(bench)] == [True] * 4
    assert all(math.isfinite(row["encoder_weight"]) for row in rows(bench))
    told = [event.body for event in bench.events() if event.kind == "post"]
    assert "step 2: encoder: the gradient was not finite: nothing was changed" in told


AT_ONCE = ("plateau_patience=2", "plateau_min_delta=100", "max_steps=8", "save_steps=4", "save=last", "eval_steps=8")
"""A plateau at step 3: no loss is lower by so much than the first."""


def test_jade_starts_the_learning_rate_of_both_models_again_and_goes_on_bit_for_bit(duo: Make, bench: Bench) -> None:
    """D17, D20."""
    settings = duo("use_jade=true", *AT_ONCE)
    folder = bench.place.run_folder / bench.trained(settings)["trained"].path
    found, kept = rows(bench), {model: weights(folder, model) for model in ("encoder", "decoder")}
    cosine = [0.5 * (1 + math.cos(math.pi * step / 5)) for step in range(5)]
    factors = [1, 7 / 8, 6 / 8, *cosine]
    assert [row["learning_rate"] for row in found] == pytest.approx([5e-3 * factor for factor in factors], rel=1e-3)
    posts = [event.body for event in bench.events() if event.kind == "post" and "plateau" in event.body]
    assert [post.partition(": plateau")[0] for post in posts] == ["step 3: encoder", "step 3: decoder"]
    half = bench.place.relative(folder.with_name("checkpoint-4"))
    again = bench.place.run_folder / bench.trained(settings, resume_from=[half])["trained"].path
    assert again != folder
    for model, before in kept.items():
        assert all(torch.equal(value, before[name]) for name, value in weights(again, model).items())


def test_both_models_may_weigh_what_they_learn_by_its_probability_from_a_plateau_on(duo: Make, bench: Bench) -> None:
    """-p log p is 1/e at most."""
    bench.trained(duo("plateau_action=reweight", *AT_ONCE, "max_steps=4", "eval_steps=4"))
    for model in ("encoder", "decoder"):
        assert [row[f"{model}_loss"] < 1 / math.e for row in rows(bench)] == [False] * 3 + [True]


def test_a_bump_that_makes_the_held_out_loss_worse_is_taken_back(duo: Make, bench: Bench) -> None:
    """From a rate that teaches to one that destroys what was learned."""
    bump = (
        "plateau_patience=10",
        "plateau_action=bump",
        "plateau_factor=1000",
        "lr_scheduler=constant",
        "eval_steps=4",
    )
    bench.trained(duo(*AT_ONCE, *bump, "max_steps=20"))
    judged = {row.step: row.figures for row in bench.metric_rows() if row.kind == "eval"}
    lasted = []
    for model in ("encoder", "decoder"):
        losses = {step: figures[f"{model}_eval_loss"] for step, figures in judged.items()}
        last = next((step for step in (12, 16) if losses[step] > losses[8]), 20)
        bumped = [step for step, row in enumerate(rows(bench), 1) if row[f"{model}_learning_rate"] > 1]
        assert bumped == list(range(12, last + 1))
        lasted.append(last)
    assert min(lasted) < 20
