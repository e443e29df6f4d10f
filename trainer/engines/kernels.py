"""Kernels of other packages in place of a base's own layers: Liger's, and those that transformers downloads from the hub.

Both packages go on without a word where they have none for a base; here that is refused.
"""

from __future__ import annotations

from typing import Any

from swarm.errors import UserError
from swarm.settings import StreamSettings


def use_other_kernels(base: Any, settings: StreamSettings) -> None:
    """Of a base without its adapter; transformers' Trainer puts Liger's in place when training begins.  Raises UserError."""
    if settings.use_liger_kernel:
        _refuse_unknown_to_liger(base.config.model_type)
    if settings.use_kernels:
        _use_those_of_the_hub(base)


def _refuse_unknown_to_liger(family: str) -> None:
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if family not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise UserError("use_liger_kernel", f"Liger has no kernels for the family {family}", "take it out")


def _use_those_of_the_hub(base: Any) -> None:
    own = _replaced(base)
    base.train()  # kernels are chosen for one mode
    try:
        base.set_use_kernels(True)
    except (ImportError, ValueError) as error:  # another version of the package
        raise UserError("use_kernels", " ".join(str(error).split()), "pip install 'toonswarm[kernels]'") from error
    if _replaced(base) == own:
        what = f"the hub has no kernel for a layer of {type(base).__name__} on {base.device.type}, or cannot be reached"
        raise UserError("use_kernels", what, "take it out")


def _replaced(base: Any) -> int:
    """Layers whose forward pass is not that of their class."""
    return sum("forward" in vars(module) for module in base.modules())
