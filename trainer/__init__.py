"""Worker processes: data preparation, training, validation, evaluation; the heavy libraries live here only.

What may be used in anybody's training loop is imported from here; the rest of the package is the workers' own.
"""

from typing import TYPE_CHECKING, Any

from trainer.arbiter import Arbiter
from trainer.unified import Decision, JumpMonitor, UnifiedController

if TYPE_CHECKING:
    from trainer.duo import Duo

__all__ = ["Arbiter", "Decision", "Duo", "JumpMonitor", "UnifiedController"]


def __getattr__(name: str) -> Any:
    """`Duo` needs torch, which is imported with it."""
    if name != "Duo":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from trainer.duo import Duo

    return Duo
