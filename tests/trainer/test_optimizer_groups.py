"""Row D26: an optimizer steps what is trained, all of it and once; TRL's trainers are asked at the start of each training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.engines.callbacks import each_in_one_group


def test_an_optimizer_without_a_trained_tensor_or_with_one_twice_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    first, second = model.parameters()
    each_in_one_group(model, torch.optim.SGD([first, second], lr=1))
    with pytest.raises(AssertionError, match=r"1\.weight is in 0 optimizer groups"):
        each_in_one_group(model, torch.optim.SGD([first], lr=1))
    stepping = torch.optim.SGD([{"params": [first]}, {"params": [second]}], lr=1)
    stepping.param_groups[1]["params"].append(first)
    with pytest.raises(AssertionError, match=r"0\.weight is in 2 optimizer groups"):
        each_in_one_group(model, stepping)
    second.requires_grad_(False)
    each_in_one_group(model, torch.optim.SGD([first], lr=1))
