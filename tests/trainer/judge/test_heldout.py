"""Held-out losses: the head computes only what some row counts, and what it finds there is what it finds among all."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import ParamWrapper
from torch.nn.functional import cross_entropy

from tests.families import FAMILIES, model_of
from trainer.control.tuner import ControlConfig
from trainer.data.tokens import IGNORED, Tokens
from trainer.judge.heldout import RowLoss, logits_at, row_losses
from trainer.loop.threads import may_compute_at_once

ROWS = [Tokens([3, 4, 5, 6, 7, 8], [IGNORED] * 4 + [7, 8], 4), Tokens([9, 3, 5], [IGNORED, IGNORED, 5], 2)]


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_all_logits_in_every_family(family: str) -> None:
    model = model_of(family).eval()
    found = row_losses(model, ROWS, lambda: None)
    for row, loss in zip(ROWS, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0, row.answer_start - 1 : -1]
        answer = torch.tensor(row.labels[row.answer_start :])
        assert loss.nats == pytest.approx(cross_entropy(logits.float(), answer, reduction="sum").item(), rel=2e-5)
        assert loss.hits == int((logits.argmax(-1) == answer).sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_computes_no_place_that_no_row_counts(family: str) -> None:
    model, seen = model_of(family).eval(), list[int]()
    model.get_output_embeddings().register_forward_hook(lambda *given: seen.append(given[1][0].shape[1]))
    row_losses(model, ROWS, lambda: None)
    assert seen == [3], "places 1, 3 and 4 of six, for two rows"


def test_a_model_whose_code_cannot_be_told_computes_all() -> None:
    class Deaf(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model_of("llama").eval()

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> object:
            return self.model(input_ids=input_ids, use_cache=use_cache)

    ids = torch.tensor([ROWS[0].ids])
    places, deaf = torch.tensor([-5, -3, -2]), Deaf()
    with torch.no_grad():
        assert torch.allclose(
            logits_at(places, deaf, input_ids=ids), logits_at(places, deaf.model, input_ids=ids), atol=1e-6
        )


# ---- several batches at once on a CPU ----------------------------------------------------------------------------------

LENGTHS = (6, 6, 5, 5, 4, 4, 3, 3)
MANY = [
    Tokens([3 + at, *range(4, 3 + length)], [IGNORED] * 2 + [7] * (length - 2), 2) for at, length in enumerate(LENGTHS)
]
TWO_ROWS = 13
"""Tokens of a batch: two rows of any of these lengths, and not three of the shortest but one."""


def adapted(model: Any, config: LoraConfig) -> Any:
    made = get_peft_model(model, config)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.1)
    return made.eval()


def budget(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr("trainer.judge.heldout.judged_tokens", lambda on_gpu: tokens)


def alone(model: Any, rows: Sequence[Tokens], monkeypatch: pytest.MonkeyPatch) -> list[RowLoss]:
    """Batch after batch on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    budget(monkeypatch, TWO_ROWS)
    try:
        return row_losses(model, rows, lambda: None, at_once=False)
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("use_dora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_batches_at_once_give_what_they_give_alone(
    family: str, use_dora: bool, cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        model = adapted(
            model_of(family), LoraConfig(target_modules="all-linear", use_dora=use_dora, task_type="CAUSAL_LM")
        )
    except ValueError as error:  # what PEFT puts no such adapter on
        assert re.search(r"ParamWrapper does not work with use_dora|incompatible with Mamba", str(error))
        return
    expected, both, at = alone(model, MANY, monkeypatch), threading.Barrier(2), set[int]()

    def met(*_: object) -> None:
        at.add(threading.get_ident())
        if threading.get_ident() != threading.main_thread().ident:
            both.wait(20)

    model.get_input_embeddings().register_forward_hook(met)
    budget(monkeypatch, 2 * TWO_ROWS)
    found = row_losses(model, MANY, lambda: None)
    has_experts = any(isinstance(module, ParamWrapper) for module in model.modules())
    may = may_compute_at_once(model.get_base_model()) and not has_experts
    assert len(at) == 2 if may else at == {threading.main_thread().ident}
    if may:
        assert found == expected
    else:  # other batches
        assert [loss.nats for loss in found] == pytest.approx([loss.nats for loss in expected], rel=1e-5)


def who_computes(model: Any, monkeypatch: pytest.MonkeyPatch, rows: Sequence[Tokens] = MANY) -> set[int]:
    at = set[int]()
    model.get_input_embeddings().register_forward_hook(lambda *_: at.add(threading.get_ident()))
    budget(monkeypatch, 2 * TWO_ROWS)
    row_losses(model, rows, lambda: None)
    return at


def test_rows_of_which_two_take_more_than_the_budget_are_computed_one_after_another(
    cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [Tokens([*range(3, 3 + TWO_ROWS + 1)], [7] * (TWO_ROWS + 1), 0)]
    assert who_computes(model_of("llama"), monkeypatch, [*long, *MANY]) == {threading.get_ident()}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_layers_that_keep_something_of_a_pass_are_asked_by_one_thread(
    cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = threading.get_ident()
    assert main not in who_computes(model_of("llama"), monkeypatch)
    control = ControlConfig(target_modules=["mlp"], control_site="mlp", task_type="CAUSAL_LM")
    assert who_computes(get_peft_model(model_of("llama"), control), monkeypatch) == {main}, "signs stand on the model"
    packed = model_of("llama")
    packed.register_parameter("packed", torch.nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False))
    assert who_computes(packed, monkeypatch) == {main}, "what is held in 4 bits is laid out anew by its first pass"


def test_nothing_is_computed_any_more_once_whoever_asks_has_left(cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes, asked = model_of("llama"), list[int](), list[int]()
    model.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))

    def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise InterruptedError

    budget(monkeypatch, 2 * max(LENGTHS))
    with pytest.raises(InterruptedError):
        row_losses(model, MANY * 40, check)
    computed = len(passes)
    assert computed < 320
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("passes")]
