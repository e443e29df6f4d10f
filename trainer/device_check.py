"""python -m trainer.device_check: whether the device that a training would take computes as the CPU does.  Prints JSON for `swarm env --check`.

A product of matrices goes forth and back in float32 and, where the device has it, in bfloat16.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from trainer.device import gpu_name, has_bfloat16, place_of, set_environment, widest

if TYPE_CHECKING:
    import torch

LARGEST_DIFFERENCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Relative, by the type that is computed in: a few times what each rounds."""


def checked(device: str | None = None) -> dict[str, Any]:
    """Of this device; None: the one that is chosen."""
    import torch

    place = place_of(device)
    on = torch.device(place.torch_device)
    types = [torch.float32, *([torch.bfloat16] if has_bfloat16(place) else [])]
    differences = {str(dtype).removeprefix("torch."): _difference(on, dtype) for dtype in types}
    return {
        "device": place.device,
        "name": gpu_name(place.device),
        "differences": differences,
        "float64": widest(on) is torch.float64,
        "agrees": all(differences[name] <= LARGEST_DIFFERENCE[name] for name in differences),
    }


def _difference(device: torch.device, dtype: torch.dtype) -> float:
    """The largest of one gradient to that of the CPU in float32, relative to the largest value there."""
    import torch

    ours, cpus = _gradient(device, dtype), _gradient(torch.device("cpu"), torch.float32)
    return float((ours - cpus).abs().max() / cpus.abs().max())


def _gradient(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    import torch

    drawn = torch.Generator().manual_seed(0)
    inputs, weights = (torch.randn(size, generator=drawn).to(device, dtype) for size in ((16, 64), (64, 8)))
    weights.requires_grad_()
    (inputs @ weights).square().mean().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    return weights.grad.float().cpu()  # (64, 8)


def main() -> int:
    set_environment()
    found = checked()
    print(json.dumps(found))
    return 0 if found["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
