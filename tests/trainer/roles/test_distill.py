"""`method: distill`: the model's own answers, scored against the base that has read the row's answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import kl_div

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from trainer.data.prepared import TRAIN, read_rows
from trainer.loading import load_adapter, load_base, load_tokenizer

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


@pytest.fixture
def distilled(settings: Make) -> Make:
    return lambda **changes: settings(**{"method": "distill", "rollout_tokens": 8, **changes})


def test_the_divergence_from_the_teacher_falls_and_a_resumed_training_has_the_same_bits(
    bench: Bench, distilled: Make
) -> None:
    given = distilled(max_steps=24, save_steps=12, learning_rate=1e-2, logging_steps=4, lora_dropout=0.1)
    whole = bench.trained(given)["trained"]
    steps = [row.figures for row in bench.metric_rows() if row.kind == "train"]
    divergences = [row["kl"] for row in steps]
    assert fmean(divergences[-2:]) < 0.7 * divergences[0]
    assert [row["loss"] for row in steps] == divergences
    assert 0 < steps[-1]["supervised_tokens"] <= 24 * 4 * 8, "those of the answers, of which each has at most 8"
    folder = bench.place.run_folder / whole.path
    verdict = bench.do(
        "validate", given, prepared=next(iter(bench.prepared)), checkpoint=whole.path, sha256=whole.sha256,
        figures=whole.figures,
    )["verdict"]  # fmt: skip
    assert verdict.result != "FAIL", verdict.why
    half = bench.place.relative(folder.with_name("checkpoint-12"))
    resumed = bench.trained(given, resume_from=[half])["trained"]
    before, after = (load_file(bench.place.run_folder / one.path / ADAPTER) for one in (whole, resumed))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("adapter", [{"use_dora": True}, {"adapter": "full"}])
def test_the_teacher_is_the_base_beside_every_kind_of_adapter(
    bench: Bench, distilled: Make, adapter: dict[str, Any]
) -> None:
    """At the first step the model is the base still, and so its answers are the same whatever is to be trained."""

    def first(**changes: Any) -> float:
        given = {"max_steps": 2, "logging_steps": 1, "learning_rate": 1e-3, "lr_scheduler": "constant", **changes}
        bench.trained(distilled(**given))
        return next(row.figures["kl"] for row in bench.metric_rows() if row.kind == "train")

    assert first(**adapter) == pytest.approx(first(), rel=1e-3)


def test_the_loss_is_that_of_each_answer_for_itself_by_the_formula(
    bench: Bench, distilled: Make, base: Path, tmp_path: Path
) -> None:
    """With a token left over there is nothing that the likeliest ones leave out."""
    given = distilled(distill_top_k=100_000)
    rows = list(read_rows(bench.place.run_folder / bench.do("prepare", given)["prepared"].path / TRAIN))
    rows = sorted(rows, key=lambda row: len(row.ids))
    chosen, keys = [rows[0], rows[-1]], [1, 2]
    model: Any = load_adapter(load_base(base, given, bench.place), tiny.save_adapter(base, tmp_path / "adapter"))
    objective = kinds.method("distill").objective(given)
    learned = objective.to_learn(model, chosen, keys)
    assert learned == objective.to_learn(model, chosen, keys) != objective.to_learn(model, chosen, [3, 4])
    expected, count = 0.0, 0
    for row, asked in zip(learned, chosen, strict=True):
        assert row.ids[: row.answer_start] == asked.ids[: row.answer_start]
        answer = row.ids[row.answer_start :]
        with torch.no_grad():
            student = model(torch.tensor([row.ids])).logits[0, row.answer_start - 1 : -1].log_softmax(-1)
            with model.disable_adapter():
                seen = torch.tensor([[*row.demonstrated, *answer]])
                teacher = model(seen).logits[0, len(row.demonstrated) - 1 : -1].log_softmax(-1)
        expected += float(kl_div(teacher, student, reduction="sum", log_target=True))
        count += len(answer)
    assert float(objective.loss(model, learned, keys).detach()) == pytest.approx(expected, rel=1e-4)
    assert objective.counted(learned, keys) == count <= 16


def test_the_teacher_reads_the_answer_within_the_last_question(
    bench: Bench, distilled: Make, base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [("system", "Be short."), ("user", "one?"), ("assistant", "1"), ("user", "two?"), ("assistant", "2")]
    rows = [[{"role": role, "content": f"{words}{number}"} for role, words in turns] for number in range(20)]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    given = distilled(
        datasets=[{"path": str(path), "type": "chatml"}], sequence_len=256, demonstration="{prompt} ({completion})"
    )
    row = next(read_rows(bench.place.run_folder / bench.do("prepare", given)["prepared"].path / TRAIN))
    tokenizer = load_tokenizer(base)
    asked = tokenizer.decode(row.ids[: row.answer_start])
    number = asked.partition("two?")[2].partition("<")[0]
    shown = asked.replace(f"two?{number}", f"two?{number} (2{number})")
    assert tokenizer.decode(row.demonstrated) == shown != asked


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ([("user", "a"), ("assistant", "b" * 300)], "it has about .* tokens, and the teacher reads answers whole"),
        ([("assistant", "a")], "its last two messages are no question of the user and its answer"),
    ],
)
def test_a_row_that_cannot_be_demonstrated_is_a_bad_one(
    bench: Bench, distilled: Make, tmp_path: Path, row: list[tuple[str, str]], what: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"messages": [{"role": role, "content": words} for role, words in row]}) + "\n")
    with pytest.raises(UserError, match=what):
        bench.do("prepare", distilled(datasets=[{"path": str(path), "type": "chatml"}]))


def test_answers_that_the_base_has_no_positions_for_are_refused_before_the_first_step(
    bench: Bench, distilled: Make
) -> None:
    with pytest.raises(UserError, match=r"500 behind a prompt of \d+ with its demonstration exceed the base's 512"):
        bench.trained(distilled(rollout_tokens=500))
