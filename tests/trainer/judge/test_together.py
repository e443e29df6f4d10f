"""Several adapters and their base in one batch: in every family the answers and losses of each alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.trainer import tiny
from tests.trainer.loop.decoders import decoder
from trainer.data.tokens import Tokens
from trainer.judge.answers import GREEDY, Question, answers
from trainer.judge.heldout import row_losses
from trainer.judge.together import Together
from trainer.loading import load_adapter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
PROMPTS = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3], [11, 12]]
ASKED = [Question(ids, "", "", 8) for ids in PROMPTS]
NEVER = [0]


def nothing() -> None:
    pass


def saved(family: str, folder: Path, seed: int, **how: object) -> Path:
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4, **how)  # type: ignore[arg-type]
    model = get_peft_model(decoder(family), config)
    torch.manual_seed(seed)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.5)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "gemma2", "gemma3", "falcon", "phi3", "neox"])
def test_each_answers_in_the_batch_as_alone(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.judge.heldout.judged_tokens", lambda on_gpu: 28)  # two batches, at once
    folders = [saved(family, tmp_path / "dora", 1, use_dora=True), saved(family, tmp_path / "lora", 2)]
    rows = [Tokens(ids * 2, [-100, *(ids * 2)[1:]], 1) for ids in PROMPTS]
    words = tiny.tokenizer()
    together = Together(decoder(family).eval(), folders)
    found = together.answers(ASKED, words, NEVER, 8, nothing, GREEDY)
    losses = [together.losses(slot, rows, nothing) for slot in (0, *together.slots)]
    alone = [decoder(family).eval(), *(load_adapter(decoder(family).eval(), folder) for folder in folders)]
    for model, texts, nats in zip(alone, found, losses, strict=True):
        expected = answers(model, words, ASKED, NEVER, 8, nothing, GREEDY)  # type: ignore[arg-type]
        assert [one.text for one in texts] == [one.text for one in expected]
        assert [one.nats for one in nats] == pytest.approx(
            [one.nats for one in row_losses(model, rows, nothing)], rel=1e-4
        )
    assert len({tuple(one.text for one in texts) for texts in found}) == 3
