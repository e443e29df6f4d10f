"""Kernels of other packages (issue 16, G15) arrive in TRL's own arguments; no GPU was at hand to compute with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import is_kernels_available
from trl.experimental.orpo import ORPOConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.kto_config import KTOConfig
from trl.trainer.sft_config import SFTConfig

from swarm.errors import UserError
from swarm.settings import StreamSettings
from trainer.engines.kernels import use_other_kernels
from trainer.engines.trl import Ingredients, arguments

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")


def settings(**changes: Any) -> StreamSettings:
    return StreamSettings.model_validate({"base_model": "tiny-toon", "datasets": [{"path": "rows.jsonl"}], **changes})


def ingredients(folder: Path, chosen: StreamSettings) -> Ingredients:
    nothing: Any = None
    return Ingredients(
        chosen, nothing, None, nothing, Dataset.from_list([]), folder, torch.float32, on_gpu=False, pins=False, callbacks=[]
    )  # fmt: skip


@pytest.mark.parametrize("config", [SFTConfig, DPOConfig, KTOConfig, ORPOConfig])
@pytest.mark.parametrize("wanted", [True, False])
def test_ligers_layers_are_asked_for_in_the_arguments_and_the_loss_stays_the_methods(
    tmp_path: Path, config: Callable[..., Any], wanted: bool
) -> None:
    given = arguments(ingredients(tmp_path, settings(use_liger_kernel=wanted)))
    if config is ORPOConfig:
        del given["router_aux_loss_coef"]
    made = config(**given)
    assert made.use_liger_kernel is wanted
    assert made.liger_kernel_config == ({"fused_linear_cross_entropy": False} if wanted else None)


@pytest.mark.skipif(is_kernels_available(), reason="it is installed")
def test_a_version_of_the_kernels_package_that_transformers_does_not_take_is_refused_in_words() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    use_other_kernels(model, settings())
    with pytest.raises(
        UserError, match=r"use_kernels: Kernels are not available.*; pip install 'toonswarm\[kernels\]'"
    ):
        use_other_kernels(model, settings(use_kernels=True))
