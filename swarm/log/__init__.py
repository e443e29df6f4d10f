"""The shared log of a run: COLLABORATION.md, a file that people and agents read and write and that loses nothing.

`Log` reads, `LogWriter` writes (one at a time), `verify` checks every byte.  The format stands in `forms.py`, `entry.py`,
`same.py`, `escaping.py` and `chain.py`, durability in `wal.py` and `ledger.py`, edits of the file by others in `mend.py` and `kept.py`.
What entries mean is the business of `swarm/state.py`.
"""

from __future__ import annotations

from swarm.log.entry import Entry
from swarm.log.errors import LogBlocked, LogDamaged, LogError, LogFull, LogHeld
from swarm.log.reader import Log
from swarm.log.verify import Fault, verify
from swarm.log.writer import LogWriter, run_is_alive
from swarm.plainfiles import NO_SPACE

__all__ = [
    "NO_SPACE",
    "Entry",
    "Fault",
    "Log",
    "LogBlocked",
    "LogDamaged",
    "LogError",
    "LogFull",
    "LogHeld",
    "LogWriter",
    "run_is_alive",
    "verify",
]
