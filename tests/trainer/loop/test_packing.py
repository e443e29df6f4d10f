"""Packed sequences, micro-batches by tokens and by length: TRL's sequences, no document that sees another, and the same losses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from tests.trainer.loop import decoders
from trainer.data.prepared import TRAIN, Rows
from trainer.loop.batches import Batches
from trainer.loop.head import Head
from trainer.loop.packing import best_fit_decreasing, within_tokens
from trainer.loop.plan import Plan, Row
from trainer.loop.probe import contamination, refuse_contamination

Make = Callable[..., StreamSettings]
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STEPS = 5
lengths_of_rows = st.lists(st.integers(1, 64), min_size=1, max_size=80)


def test_sequences_are_those_that_trl_packs() -> None:
    """G19."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    for seed in range(5):
        draw = random.Random(seed)
        lengths = [draw.randint(1, 64) for _ in range(200)]
        rows = Dataset.from_dict({"input_ids": [[number] * length for number, length in enumerate(lengths)]})
        packed = pack_dataset(rows, 64, "bfd")["input_ids"]
        theirs = [list(dict.fromkeys(sequence)) for sequence in packed]
        assert best_fit_decreasing(lengths, 64) == theirs


@given(lengths_of_rows)
def test_every_row_is_packed_once_within_the_room(lengths: list[int]) -> None:
    made = best_fit_decreasing(lengths, 64)
    assert sorted(row for sequence in made for row in sequence) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in sequence) <= 64 for sequence in made)
    assert len(made) <= 1 + 2 * sum(lengths) / 64


@given(lengths_of_rows, st.integers(64, 300), st.booleans())
def test_micro_batches_by_tokens_hold_each_row_once_and_their_pads(
    lengths: list[int], most: int, by_length: bool
) -> None:
    """X11."""
    made = within_tokens(lengths, most, by_length=by_length)
    assert sorted(row for micro_batch in made for row in micro_batch) == list(range(len(lengths)))
    assert all(len(rows) * max(lengths[row] for row in rows) <= most for rows in made)


def of(rows: list[Any], **changes: Any) -> Batches:
    values = {"base_model": "x", "datasets": [{"path": "-"}], "micro_batch_size": 4, "sequence_len": 64, **changes}
    return Batches.of(StreamSettings.model_validate(values), rows)


def pads(batches: Batches) -> float:
    widths = [
        (len(rows) * max(len(row.ids) for row in rows), sum(len(row.ids) for row in rows))
        for step in range(batches.steps_per_epoch)
        for rows in batches.of_step(step)
    ]
    return 1 - sum(real for _, real in widths) / sum(padded for padded, _ in widths)


def test_rows_of_like_length_need_fewer_pads_and_come_in_transformers_order() -> None:
    """X11."""
    from transformers.trainer_pt_utils import LengthGroupedSampler

    rows = decoders.rows(60, (4, 60))
    grouped, plain = of(rows, group_by_length=True, seed=3), of(rows, seed=3)
    assert pads(grouped) < pads(plain) / 2
    sampler = LengthGroupedSampler(
        4, lengths=[len(row.ids) for row in rows], generator=torch.Generator().manual_seed(3)
    )
    assert [row for step in range(15) for (batch,) in [grouped.of_step(step)] for row in batch] == [
        rows[index] for index in sampler
    ]
    by_tokens = of(rows, batch_size_tokens=128, group_by_length=True)
    assert pads(by_tokens) < 0.1
    assert by_tokens.steps_per_epoch < 60
    epochs = [
        [len(by_tokens.of_step(step)[0]) for step in range(at, at + by_tokens.steps_per_epoch)]
        for at in (0, by_tokens.steps_per_epoch)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def probe(model: Any) -> float:
    first, second = decoders.rows(2, (30, 40))
    return contamination(
        Head(model.eval(), Plan()), [Row(0, first.ids, first.labels), Row(0, second.ids[:12], second.labels[:12])]
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral"])
def test_documents_of_a_packed_sequence_do_not_see_each_other(family: str) -> None:
    assert probe(decoders.decoder(family)) < 1e-5


def test_a_base_in_which_they_do_is_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = BertLMHeadModel(BertConfig(vocab_size=decoders.VOCABULARY, is_decoder=False, **sizes))
    assert probe(model) > 1e-3
    with pytest.raises(
        UserError, match="packing: two documents of a packed sequence change each other on this base, by"
    ):
        refuse_contamination(Head(model.eval(), Plan()), 0, decoders.rows(2, (70, 80)))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uneven") / "x.jsonl"
    rows = [{"prompt": f"n {n}", "completion": "a" * (1 + n * n % 37)} for n in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_packed_training_has_the_losses_of_trls_packing(
    bench: Bench, settings: Make, uneven: Path, tmp_path: Path
) -> None:
    """G19: TRL puts the documents of a sequence into one row, here each has its own."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl.data_utils import pack_dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    chosen = settings(
        datasets=[{"path": str(uneven)}], packing="bfd", max_steps=STEPS, micro_batch_size=2, gradient_accumulation_steps=2,
        lora_r=4, lora_alpha=8, lora_dropout=0.0, seed=7,
    )  # fmt: skip
    prepared = bench.do("prepare", chosen)["prepared"].path
    bench.do("train", chosen, prepared=prepared)
    figures = [row.figures for row in bench.metric_rows() if row.kind == "train"]
    ours = [each["loss"] for each in figures]
    assert all(each["padded"] < 0.25 and each["supervised"] > 0 for each in figures)

    set_seed(chosen.seed)
    base = AutoModelForCausalLM.from_pretrained(chosen.base_model, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    rows = Dataset.from_list(
        [{"input_ids": row.ids, "labels": row.labels} for row in Rows(bench.place.run_folder / prepared / TRAIN)]
    )
    how = SFTConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", logging_steps=1,
        dataset_kwargs={"skip_prepare_dataset": True}, packing=True, padding_free=True, max_length=64, max_steps=STEPS, save_strategy="no",
        seed=chosen.seed, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=5e-3, lr_scheduler_type="linear",
        warmup_steps=0, max_grad_norm=1.0, weight_decay=0.0, optim="adamw_torch_fused", disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=how, train_dataset=pack_dataset(rows, 64, "bfd"), processing_class=AutoTokenizer.from_pretrained(chosen.base_model)
    )  # fmt: skip
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_training_by_tokens_computes_no_more_than_it_may(bench: Bench, settings: Make, uneven: Path) -> None:
    """X11."""
    given = {"datasets": [{"path": str(uneven)}], "batch_size_tokens": 128, "group_by_length": True, "max_steps": 4}
    prepared = bench.do("prepare", settings(**given))["prepared"].path
    bench.do("train", settings(**given), prepared=prepared)
    tokens = [row.figures["tokens"] for row in bench.metric_rows() if row.kind == "train"]
    steps = [after - before for before, after in zip([0, *tokens], tokens, strict=False)]
    assert len(steps) == 4
    assert all(64 < step <= 128 for step in steps)
