"""The shared log of a run: COLLABORATION.md, which people and agents read and type into and nothing is lost from.

`Log` reads, `LogWriter` writes (one at a time), `verify` checks every byte.  The format stands in `entry.py`,
`escaping.py` and `chain.py`, durability in `wal.py` and `ledger.py`, what people do to the file in `mend.py` and `kept.py`.
What entries mean is not decided here (`swarm/state.py`).
"""

from __future__ import annotations

from swarm.log.entry import Entry, parse, render
from swarm.log.errors import NO_SPACE, LogDamaged, LogError, LogFull, LogHeld
from swarm.log.reader import Log
from swarm.log.verify import Fault, verify
from swarm.log.writer import LogWriter, run_is_alive

__all__ = [
    "NO_SPACE",
    "Entry",
    "Fault",
    "Log",
    "LogDamaged",
    "LogError",
    "LogFull",
    "LogHeld",
    "LogWriter",
    "parse",
    "render",
    "run_is_alive",
    "verify",
]
