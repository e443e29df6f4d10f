"""Training one stream for real: every adapter learns, resumes bit for bit, obeys, and ends with a checkpoint that loads."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from swarm.errors import UserError
from swarm.events import Trained
from swarm.messages import MetricRow, Metrics, Order, Report
from swarm.settings import StreamSettings
from swarm.weights import adapter_sha256
from tests.trainer.conftest import Bench
from trainer import bases, checkpoint
from trainer.data.prepared import TRAIN
from trainer.errors import LeaseRevoked, LeaseStopped

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


@pytest.fixture(params=["shared", "trl"])
def settings(settings: Make, request: pytest.FixtureRequest) -> Make:
    """Whatever trains a stream, its user sees the same."""
    return lambda **changes: settings(**{"engine": request.param, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True, "gradient_checkpointing": True, "lora_dropout": 0.1},
        {"adapter": "qlora"},
    ],
    ids=["lora", "dora", "rslora with checkpointing and dropout", "qlora"],
)
def test_every_adapter_learns_and_its_checkpoint_loads(
    bench: Bench, settings: Make, base: Path, changes: dict[str, object]
) -> None:
    done = bench.trained(settings(max_steps=8, save_steps=4, save_total_limit=1, **changes))
    trained, folder = done["trained"], bench.place.run_folder / done["trained"].path
    assert (trained.step, trained.why) == (8, "max_steps")
    assert trained.figures["loss"] < trained.figures["first_loss"] - 0.2
    assert trained.sha256 == adapter_sha256(folder)
    assert bases.weights_sha256(str(base)).startswith(trained.base_sha256) and len(trained.base_sha256) == 16, "D29"
    assert f"torch {metadata.version('torch')}, transformers" in trained.versions
    assert [event.kind for event in bench.events()] == ["checkpoint", "trained"]
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint-8"]
    assert {value.dtype for value in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}
    assert any("lora_magnitude_vector" in name for name in load_file(folder / "adapter_model.safetensors")) == (
        "use_dora" in changes
    )
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    layer: Any = loaded.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    assert layer.scaling["default"] == pytest.approx(16 / (8**0.5 if "use_rslora" in changes else 8))
    assert sum(value.numel() for name, value in loaded.named_parameters() if "lora_" in name) == trained.trainable


def test_a_checkpoint_is_due_by_hours_of_training_too(bench: Bench, settings: Make) -> None:
    done = bench.trained(settings(max_steps=4, save_steps=100, save_total_limit=9, save_hours=1e-9))["trained"]
    kept = (bench.place.run_folder / done.path).parent
    assert sorted(path.name for path in kept.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in range(1, 5)]


def losses_of(trained: Trained) -> list[float]:
    return [trained.figures[name] for name in ("first_loss", "loss")]


def test_figures_are_sent_kept_and_written(bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(eval_steps=2))["trained"]
    sent = bench.metric_rows()
    assert [(row.step, row.kind) for row in sent] == [
        (1, "train"),
        (2, "eval"),
        (2, "train"),
        (3, "train"),
        (4, "eval"),
        (4, "train"),
    ]
    assert all(("loss" if row.kind == "train" else "eval_loss") in row.figures for row in sent)
    steps = [row.figures for row in sent if row.kind == "train"]
    tokens = [figures["tokens"] for figures in steps]
    assert tokens == sorted(tokens) and tokens[0] > 0
    seconds = steps[-1]["seconds"] - steps[-2]["seconds"]
    assert steps[-1]["tokens_per_second"] == pytest.approx((tokens[-1] - tokens[-2]) / seconds, rel=0.5), "A20"
    folder = bench.place.stream_folder("one")
    with (folder / "train_log.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {"step", "kind", "time", "loss", "eval_loss", "grad_norm"} <= table[0].keys() and len(table) == 6
    assert [row["step"] for row in json.loads((folder / "train_log.json").read_text())] == [row.step for row in sent]
    states = [json.loads(path.read_text()) for path in folder.glob("t*/checkpoint-*/trainer_state.json")]
    assert not any(state["log_history"] for state in states), "no checkpoint holds a copy"
    times = json.loads((folder / "time_metrics.json").read_text())
    assert (
        trained.figures["tokens_per_second"] == pytest.approx(times["tokens_per_second"], abs=1) and times["tokens"] > 0
    )
    assert trained.figures["peak_bytes"] > 0


def weights(bench: Bench, path: str) -> dict[str, torch.Tensor]:
    return load_file(bench.place.run_folder / path / "adapter_model.safetensors")


@pytest.mark.parametrize("steps", [7, 15], ids=["within an epoch", "across epochs"])
def test_a_resumed_training_is_bit_for_bit_the_uninterrupted_one(
    bench: Bench, settings: Make, steps: int, at_once: None
) -> None:
    given = settings(max_steps=18, save_steps=100, lora_dropout=0.1, lr_scheduler="cosine", weight_decay=0.01)
    whole_run = bench.trained(given)["trained"]
    whole_losses = [(row.step, row.figures["loss"]) for row in bench.metric_rows()]
    prepared = bench.do("prepare", given)["prepared"].path
    bench.on_message = lambda message, lease: stop_after(steps, message, lease)
    with pytest.raises(LeaseStopped):
        bench.do("train", given, prepared=prepared)
    saved = next(event for event in bench.events() if event.kind == "checkpoint")
    bench.on_message = lambda message, lease: None
    resumed = bench.do("train", given, prepared=prepared, resume_from=[saved.path])["trained"]
    assert [(row.step, row.figures["loss"]) for row in bench.metric_rows()] == whole_losses[saved.step :]
    before, after = weights(bench, whole_run.path), weights(bench, resumed.path)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert losses_of(resumed) == losses_of(whole_run)
    log = json.loads((bench.place.stream_folder("one") / "train_log.json").read_text())
    assert [row["step"] for row in log] == list(range(1, 19))


def stop_after(step: int, message: object, lease: object) -> None:
    if isinstance(message, Metrics) and message.rows[-1].step >= step:
        lease.take(Order(ref="one/train", token=lease.token, what="stop"))


def test_a_stop_reports_its_checkpoint_first(bench: Bench, settings: Make, at_once: None) -> None:
    bench.on_message = lambda message, lease: stop_after(3, message, lease)
    with pytest.raises(LeaseStopped, match="stopped"):
        bench.trained(settings(max_steps=50))
    assert [event.kind for event in bench.events()] == ["checkpoint", "checkpoint"]
    assert bench.events()[-1].step in (3, 4)


def test_a_revoked_lease_ends_without_a_report_and_without_a_checkpoint(
    bench: Bench, settings: Make, at_once: None
) -> None:
    def lose(message: object, lease: object) -> None:
        if isinstance(message, Metrics):
            lease.take(Order(ref="one/train", token=lease.token, what="revoke"))

    bench.on_message = lose
    with pytest.raises(LeaseRevoked):
        bench.trained(settings(max_steps=50))
    assert not [message for message in bench.said if isinstance(message, Report)]
    assert not list((bench.place.stream_folder("one") / "t2").iterdir())


def test_a_checkpoint_saved_while_the_lease_changes_hands_is_reported_under_the_new_token_with_the_path_where_it_lies(
    bench: Bench, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_place = checkpoint.publish

    def publish(staged: Path, place: Path) -> None:
        put_into_place(staged, place)
        bench.lease.take(Order(ref="one/train", token=9, what="hand"))

    monkeypatch.setattr(checkpoint, "publish", publish)
    bench.trained(settings())
    assert [(event.tok, event.path) for event in bench.events()] == [
        (9, "streams/one/t2/checkpoint-2"), (9, "streams/one/t9/checkpoint-4"),
    ]  # fmt: skip
    assert all((bench.place.run_folder / event.path).is_dir() for event in bench.events())


def test_a_torn_checkpoint_is_passed_over_and_the_log_says_so(bench: Bench, settings: Make) -> None:
    bench.trained(settings())
    folder = bench.place.run_folder / "streams/one/t2"
    (folder / "checkpoint-4" / "optimizer.pt").unlink()
    given = [f"streams/one/t2/checkpoint-{step}" for step in (4, 2)]
    done = bench.trained(settings(), resume_from=given)
    assert done["post"].body == "goes on from step 2; passed over: checkpoint-4 lacks optimizer.pt"
    assert [row.step for row in bench.metric_rows()] == [3, 4]


def test_a_training_that_was_over_before_its_worker_died_is_only_reported(bench: Bench, settings: Make) -> None:
    first = bench.trained(settings())["trained"]
    again = bench.trained(settings(), resume_from=[first.path])["trained"]
    assert (again.sha256, again.step, again.why, losses_of(again)) == (first.sha256, 4, "max_steps", losses_of(first))
    assert bench.metric_rows() == []


def test_the_time_cap_counts_earlier_attempts_and_saves(bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(max_steps=5000, max_minutes=1, save_steps=5000), spent_seconds=59.8)["trained"]
    assert (trained.why, 0 < trained.step < 5000) == ("max_minutes", True)
    assert trained.figures["seconds"] >= 60
    assert all(row.figures["seconds"] >= 59.8 for row in bench.metric_rows())


def test_of_a_training_that_overfits_the_best_checkpoint_is_kept_and_handed_over(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    files = {"train.jsonl": "aaaa", "held_out.jsonl": "bbbb"}  # the surer it is of an a, the worse it is at a b
    for name, answer in files.items():
        rows = [{"prompt": f"{name} {n}", "completion": answer} for n in range(12)]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, held_out = ([{"path": str(tmp_path / name), "type": "prompt_completion"}] for name in files)
    given = {
        "datasets": train, "test_datasets": held_out, "learning_rate": 0.05, "max_steps": 45, "eval_steps": 4, "save_steps": 5,
        "save_total_limit": 1,
    }  # fmt: skip
    trained = bench.trained(settings(**given))["trained"]
    losses = {row.step: row.figures["eval_loss"] for row in bench.metric_rows() if row.kind == "eval"}
    best, last = min(losses, key=lambda step: (losses[step], step)), max(losses)
    assert (last, best < 40) == (45, True), losses
    assert (trained.step, trained.path) == (45, f"streams/one/t2/checkpoint-{best}")
    assert trained.sha256 == adapter_sha256(bench.place.run_folder / trained.path)
    assert trained.why == (
        f"max_steps; step {best} has the lowest held-out loss, {losses[best]:.4g} (the last {losses[last]:.4g}): it is handed over"
    )
    assert {path.name for path in (bench.place.stream_folder("one") / "t2").glob("checkpoint-*")} == {
        f"checkpoint-{best}", "checkpoint-45",
    }  # fmt: skip
    judged = bench.do(
        "validate", settings(**given), prepared=next(iter(bench.prepared)), checkpoint=trained.path, sha256=trained.sha256,
        figures={"eval_loss": losses[best]},
    )["verdict"]  # fmt: skip
    assert judged.figures["eval_loss"] == pytest.approx(losses[best], rel=1e-3)
    resumed = bench.do(
        "train", settings(**given), prepared=next(iter(bench.prepared)), resume_from=["streams/one/t2/checkpoint-45"]
    )["trained"]
    assert (resumed.path, resumed.sha256) == (trained.path, trained.sha256)
    assert bench.trained(settings(**given, save="last"))["trained"].path.endswith("checkpoint-45")


def test_a_warm_up_leaves_at_least_one_step_to_learn_in(bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(max_steps=1, warmup_ratio=0.5))["trained"]
    rate = next(row.figures["learning_rate"] for row in bench.metric_rows() if row.kind == "train")
    assert (trained.step, rate) == (1, 5e-3)


def test_a_learning_rate_that_moves_nothing_is_refused(bench: Bench, settings: Make) -> None:
    with pytest.raises(UserError, match=r"moved no weight at step 1; raise it|no weight moved at step 1; raise"):
        bench.trained(settings(learning_rate=5e-324, optimizer="sgd"))
    assert "trained" not in [event.kind for event in bench.events()]


def test_epochs_end_a_training_too(bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(max_steps=None, num_epochs=0.5))["trained"]
    assert (trained.step, trained.why) == (6, "num_epochs")


def test_a_loss_that_is_not_finite_ends_the_stream_with_a_reason(bench: Bench, settings: Make) -> None:
    with pytest.raises(
        UserError,
        match=r"^one: (loss was not finite|adapter was not finite|the adapter's weights grew to \S+) at step \d+; lower learning_rate$",
    ):
        bench.trained(settings(max_steps=200, learning_rate=1e30, max_grad_norm=1e30))
    assert "loss" not in bench.metric_rows()[-1].figures
    assert not list((bench.place.stream_folder("one") / "t2").glob("checkpoint-*"))
    assert "trained" not in [event.kind for event in bench.events()]


def test_rows_that_are_not_those_of_the_log_are_not_trained_on(bench: Bench, settings: Make) -> None:
    prepared = bench.do("prepare", settings())["prepared"].path
    (bench.place.run_folder / prepared / TRAIN).write_bytes(b"other rows")
    with pytest.raises(UserError, match=r"train\.arrow of .* is not what was sealed; put it back as it was"):
        bench.do("train", settings(), prepared=prepared)


def test_target_modules_that_match_nothing_are_a_users_error(bench: Bench, settings: Make) -> None:
    with pytest.raises(UserError, match=r"lora_target_modules: nothing matches no layer"):
        bench.trained(settings(lora_target_modules=["nothing"]))


def test_a_quantised_base_that_was_evaluated_still_passes_gradients(settings, tmp_path) -> None:
    """bitsandbytes repacks NF4 weights at the first eval forward on some CPUs; a training after that learnt nothing."""
    import torch

    from trainer.loading import load_base, new_adapter
    from trainer.place import Place

    chosen = settings(adapter="qlora")
    base = load_base(Path(chosen.base_model), chosen, Place(tmp_path, "cpu", 1, 0))
    model = new_adapter(base, chosen)
    tokens = torch.arange(8).unsqueeze(0)  # (1, 8)
    model.eval()
    with torch.no_grad():
        model(input_ids=tokens)
    model.train()
    model(input_ids=tokens, labels=tokens).loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if "lora_B" in name}
    assert gradients
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


def test_both_engines_make_the_same_steps(bench: Bench, settings: Make) -> None:
    """Of the same settings: rows, accumulation, schedule, clipping and decay; only dropout draws other numbers."""
    if settings().engine == "trl":
        pytest.skip("compared with the other one")
    given = {
        "max_steps": None, "num_epochs": 2.0, "gradient_accumulation_steps": 3, "micro_batch_size": 3, "lr_scheduler": "cosine",
        "warmup_ratio": 0.2, "weight_decay": 0.1, "max_grad_norm": 0.4, "seed": 5, "use_dora": True, "logging_steps": 2, "eval_steps": 4,
        "optimizer": "adamw_torch",
    }  # fmt: skip
    rows: dict[str, list[MetricRow]] = {}
    for engine in ("shared", "trl"):
        bench.trained(settings(**given, engine=engine))
        rows[engine] = bench.metric_rows()
    assert [(row.step, row.kind) for row in rows["shared"]] == [(row.step, row.kind) for row in rows["trl"]]
    assert all(row.step % 2 == 0 for row in rows["trl"]), "A05"
    for mine, theirs in zip(rows["shared"], rows["trl"], strict=True):
        for name in {"loss", "eval_loss", "grad_norm", "learning_rate", "epoch", "tokens"} & theirs.figures.keys():
            assert mine.figures[name] == pytest.approx(theirs.figures[name], rel=1e-5, abs=1e-6), (mine.step, name)


def test_a_checkpoint_goes_on_under_the_engine_that_wrote_it(bench: Bench, settings: Make) -> None:
    written = settings()
    path = bench.trained(written)["trained"].path
    other = "trl" if written.engine == "shared" else "shared"
    with pytest.raises(
        UserError,
        match=rf"^engine: checkpoint-4 was written by {written.engine}, and {other} cannot .* write `engine: {written.engine}`",
    ):
        bench.trained(settings(engine=other, max_steps=6), resume_from=[path])
