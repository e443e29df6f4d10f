"""The command lines with which this program starts its own modules in processes of their own."""

from __future__ import annotations

import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """`python -P -m module arguments`.

    Without `-P` Python puts the current folder first on the import path, and a file there that happens to be called
    `trainer.py`, `toon.py` or `zmq.py` would be imported and run.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
