"""Worker processes: data preparation, training, validation, evaluation; the heavy libraries live here only.

What may be used in anybody's training loop is imported from here; the rest of the package is the workers' own.
"""

from trainer.unified import Decision, JumpMonitor, UnifiedController

__all__ = ["Decision", "JumpMonitor", "UnifiedController"]
