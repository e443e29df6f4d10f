"""Muon for matrices, torch's own, and AdamW for whatever is trained beside them, such as the bias of a head: one optimizer.

A matrix is moved by the orthogonal factor of its momentum (Newton-Schulz, https://kellerjordan.github.io/posts/muon/), as far as AdamW
would move it in the mean, so that AdamW's learning rates fit (arXiv 2502.16982).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


class Muon(torch.optim.Optimizer):
    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """`betas` and `eps` are AdamW's."""
        groups = [{**group, "params": list(group["params"])} for group in _grouped(list(params))]
        matrices, others = ([_only(group, matrices=wanted) for group in groups] for wanted in (True, False))
        self._muon = torch.optim.Muon(matrices, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        half = len(self.param_groups) // 2
        halves: list[tuple[Any, list[dict[str, Any]]]] = [
            (self._muon, self.param_groups[:half]),
            (self._adamw, self.param_groups[half:]),
        ]
        for one, groups in halves:
            one.state, one.param_groups = self.state, groups  # load_state_dict has made new ones
            one.step()
        return loss


def _only(group: dict[str, Any], *, matrices: bool) -> dict[str, Any]:
    return {**group, "params": [value for value in group["params"] if (value.ndim == 2) is matrices]}


def _grouped(params: list[Any]) -> list[dict[str, Any]]:
    return params if isinstance(params[0], dict) else [{"params": params}]
