"""The factor by which a stream's loss is multiplied where its base computes in float16, so that small gradients do not become zero there.

As torch's GradScaler, with two differences.  Each stream has its own factor: rows of a pass share no sum, so that one stream's overflow
changes nothing for another.  And a step whose gradients overflowed is not left out but computed again with half the factor, so that no
row is lost and the number of steps is what it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

FIRST, LARGEST = 2.0**16, 2.0**24
GROWTH_STEPS = 2000
"""Without an overflow, after which the factor is doubled; this and FIRST are torch's."""


class Scaler:
    def __init__(self) -> None:
        self.factor, self.clean_steps = FIRST, 0

    def unscaled(self, gradients: list[Tensor]) -> bool:
        """Divides them by the factor; False, with a smaller one, where they overflowed and the step is to be computed again.

        At a factor of 1 an overflow is no fault of scaling: the gradients stay as they are, and whoever steps says so.
        """
        torch._foreach_mul_(gradients, 1 / self.factor)
        if _all_finite(gradients) or self.factor <= 1:
            self._grow()
            return True
        self.factor, self.clean_steps = self.factor / 2, 0
        return False

    def _grow(self) -> None:
        self.clean_steps += 1
        if self.clean_steps >= GROWTH_STEPS:
            self.factor, self.clean_steps = min(LARGEST, self.factor * 2), 0

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self.factor, "clean_steps": self.clean_steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.factor, self.clean_steps = state["factor"], state["clean_steps"]


def _all_finite(gradients: Iterable[Tensor]) -> bool:
    """The largest absolute value of each is finite where all are; one value comes from the device."""
    return bool(torch.stack(torch._foreach_norm(list(gradients), float("inf"))).isfinite().all())
