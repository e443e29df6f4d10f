"""Worker processes: data preparation, training, validation, evaluation; the heavy libraries live here only.

What may be used in anybody's training loop is imported from here; the rest of the package is the workers' own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from trainer.arbiter import Arbiter
from trainer.jumps import JumpMonitor
from trainer.moded import Decision
from trainer.orbital import OrbitalController
from trainer.unified import UnifiedController

if TYPE_CHECKING:
    from trainer.callback import UnifiedCallback
    from trainer.duo import Duo

__all__ = ["Arbiter", "Decision", "Duo", "JumpMonitor", "OrbitalController", "UnifiedCallback", "UnifiedController"]

HEAVY = {"Duo": "trainer.duo", "UnifiedCallback": "trainer.callback"}
"""Names whose modules need torch or transformers, which are imported with them."""


def __getattr__(name: str) -> Any:
    if name not in HEAVY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HEAVY[name]), name)
