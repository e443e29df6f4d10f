"""What the libraries say that nobody can act on, kept out of a worker's log; said once a process, before they are imported."""

from __future__ import annotations

import logging
import os
import warnings

BNB_CPU_KERNEL = "Failed to load CPU gemm_4bit_forward"
"""bitsandbytes logs this where an optional kernel is absent; its own code is used instead."""


def quieten() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: BNB_CPU_KERNEL not in record.getMessage()
    )
    # transformers warns of names that trl and peft still use.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
