"""Bases of several families are prepared for, trained on and judged like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.settings import StreamSettings
from tests import families
from tests.trainer import tiny
from tests.trainer.conftest import Bench

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TOKENS = len(tiny.tokenizer())
SPECIAL = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}


def save(family: str, folder: Path) -> Path:
    changes: dict[str, Any] = {"vocab_size": TOKENS, **SPECIAL}
    if "text_config" in families.FAMILIES[family][1]:
        changes = {"text_config": {**families.FAMILIES[family][1]["text_config"], **changes}}
    families.model_of(family, **changes).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("family", "adapter"),
    [
        ("gemma3 that sees", {}), ("qwen2.5 that sees", {}), ("gemma2", {}), ("gpt2", {"use_dora": True}), ("gpt2", {"adapter": "qlora"}), ("mixtral", {}),
        ("falcon", {}), ("mamba", {}), ("gemma3 that sees", {"adapter": "qlora"}),
    ],
    ids=str,
)  # fmt: skip
def test_a_family_is_trained_and_judged(
    bench: Bench, settings: Callable[..., StreamSettings], tmp_path: Path, family: str, adapter: dict[str, Any]
) -> None:
    chosen = settings(base_model=str(save(family, tmp_path / "base")), max_steps=2, lora_r=4, **adapter)
    prepared = bench.do("prepare", chosen)["prepared"]
    trained = bench.do("train", chosen, prepared=prepared.path)["trained"]
    given = {"prepared": prepared.path, "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", chosen, **given)["verdict"]
    assert verdict.result in {"SUCCESS", "WARNING"}, verdict
    assert bench.do("evaluate", chosen, **given)["score"].rows == 12


def test_a_base_computes_its_attention_as_the_settings_say(
    settings: Callable[..., StreamSettings], tmp_path: Path
) -> None:
    import torch

    from trainer.loading import load_base
    from trainer.place import Place

    ids = torch.tensor([[1, 5, 7, 9]])
    made = {}
    for chosen in ("auto", "sdpa", "eager"):
        made[chosen] = load_base(
            Path(settings().base_model), settings(attn_implementation=chosen), Place(tmp_path, "cpu")
        )
    assert [base.config._attn_implementation for base in made.values()] == ["sdpa", "sdpa", "eager"]
    torch.testing.assert_close(made["eager"](ids).logits, made["sdpa"](ids).logits)
