"""Duo: AdamW and Lion in one optimizer, apart by the role of a parameter group, or blended into one update.

    from trainer import Duo
    optimizer = Duo([{"params": encoder.parameters(), "role": "encoder"}, {"params": decoder.parameters(), "role": "decoder"}],
                    lr=2e-5, weight_decay=0.01, mode="split")

It is an ordinary torch optimizer: schedulers, `GradScaler` and `state_dict` work with it.  AdamW: arXiv 1711.05101; Lion: 2302.06675.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Role = Literal["encoder", "decoder", "shared"]
Mode = Literal["split", "blend", "hybrid", "amp"]
ROLES: tuple[Role, ...] = get_args(Role)
MODES: tuple[Mode, ...] = get_args(Mode)


class Duo(torch.optim.Optimizer):
    """`mode` says how large AdamW's share of the update of each role is; Lion has the rest.

    split: 1 for encoders, 0 for decoders and what is shared by both; blend: `share` for all; hybrid: as split, but `share` for what
    is shared; amp: as split, and a step with a gradient that is not finite changes nothing and is counted in `skipped`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        lion_betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        mode: Mode = "hybrid",
        share: float = 0.5,
        lion_scale: float = 1.0,
        role: Role = "decoder",
    ) -> None:
        """`role`: of groups that name none.  `lion_scale`: Lion's learning rate is lr times it; its steps have the size of the rate, so that a tenth to a third fits.

        The decay is one for both: weight_decay times lr, each step.
        """
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is not one of {', '.join(MODES)}")
        if not 0 <= share <= 1:
            raise ValueError(f"share is AdamW's part of a blend, from 0 to 1, not {share}")
        defaults = {
            "lr": lr, "betas": betas, "lion_betas": lion_betas, "eps": eps, "weight_decay": weight_decay, "lion_scale": lion_scale,
            "role": role,
        }  # fmt: skip
        super().__init__(params, defaults)
        self.mode: Mode = mode
        self.share = share
        self.skipped = 0
        for group in self.param_groups:
            if group["role"] not in ROLES:
                raise ValueError(f"role {group['role']!r} of a parameter group is not one of {', '.join(ROLES)}")

    def share_of(self, role: Role) -> float:
        """AdamW's share of the updates of a role."""
        if self.mode == "blend" or (self.mode == "hybrid" and role == "shared"):
            return self.share
        return 1.0 if role == "encoder" else 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]  # torch overloads it
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        stepped = [
            (group, [value for value in group["params"] if value.grad is not None]) for group in self.param_groups
        ]
        if self.mode == "amp" and not all(value.grad.isfinite().all() for _, values in stepped for value in values):
            self.skipped += 1
            return loss
        for group, values in stepped:
            self._step(group, values)
        return loss

    def _step(self, group: dict[str, Any], values: list[Tensor]) -> None:
        share, decay = self.share_of(group["role"]), 1 - group["lr"] * group["weight_decay"]
        for value in values:
            state, gradient = self.state[value], value.grad
            assert gradient is not None
            value.mul_(decay)
            # Both candidates begin at the decayed weight, with the same gradient; lerp is exact at both ends.
            by_adamw = self._adamw(value, gradient, state, group) if share > 0 else value
            by_lion = self._lion(value, gradient, state, group) if share < 1 else value
            value.copy_(by_adamw if share == 1 else by_lion if share == 0 else torch.lerp(by_lion, by_adamw, share))

    @staticmethod
    def _adamw(value: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Where AdamW would go: torch's own order of operations, so that the two are equal bit for bit."""
        if "step" not in state:
            state |= {"step": 0, "mean": torch.zeros_like(value), "square": torch.zeros_like(value)}
        state["step"] += 1
        (beta1, beta2), step = group["betas"], state["step"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        divisor = (state["square"].sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])
        return value.addcdiv(state["mean"], divisor, value=-group["lr"] / (1 - beta1**step))

    @staticmethod
    def _lion(value: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(value)
        beta1, beta2 = group["lion_betas"]
        direction = torch.lerp(gradient, state["momentum"], beta1).sign_()
        state["momentum"].lerp_(gradient, 1 - beta2)
        return value.add(direction, alpha=-group["lr"] * group["lion_scale"])
