"""Tests of exact training need it before the first matrix product of their process, which may be another test's."""

from __future__ import annotations

import pytest
import torch

from trainer.determinism import allow_one_order


@pytest.fixture(autouse=True, scope="session")
def _one_order_is_allowed() -> None:
    if torch.cuda.is_available():
        allow_one_order()
