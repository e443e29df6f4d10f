"""Silences messages of the libraries that nobody can act on; called once in a process, before they are imported."""

from __future__ import annotations

import logging
import os
import warnings

BNB_CPU_KERNEL = "Failed to load CPU gemm_4bit_forward"
"""bitsandbytes logs this if an optional kernel is missing; it then uses its own code."""


def quieten() -> None:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault(
        "TRL_EXPERIMENTAL_SILENCE", "1"
    )  # ORPO's trainer has no other place; the lock pins its version
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
        lambda record: BNB_CPU_KERNEL not in record.getMessage()
    )
    # transformers warns of names that trl and peft still use.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
