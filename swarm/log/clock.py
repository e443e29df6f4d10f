"""Whether this machine's clock was set since the log was last written, so that leases run by elapsed time and not by what it shows.

The kernel counts seconds since the machine started, which nobody can set.  Beside the log stands how far its time was ahead of that
count; while the machine has not been started again, whoever writes next can tell by how much the clock has been set since.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from swarm import plainfiles
from swarm.files import stat_or_none, write_whole
from swarm.rundir import LogFiles

TOLERANCE_SECONDS = 2.0
"""A clock is adjusted all the time, and log times are whole seconds."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LONGEST_NOTE_BYTES = 256


def seconds_since_boot() -> float:
    """A clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def set_forward_seconds(log: Path, now: float) -> float:
    """By how much the clock was set forward since the log was last written; 0.0 where nobody can tell.

    `now` is log time.  It is noted for the next writer.  (A clock that was set back is the writer's business: see `reader.log_time`.)
    """
    place, boot, ahead = LogFiles(log).clock, _boot_id(), now - seconds_since_boot()
    before = _ahead_before(place, boot)
    if before is None or abs(ahead - before) > TOLERANCE_SECONDS:
        write_whole(place, json.dumps({"boot": boot, "ahead": ahead}))
    return ahead - before if before is not None and ahead - before > TOLERANCE_SECONDS else 0.0


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


def _ahead_before(place: Path, boot: str) -> float | None:
    """What the last writer noted, if the machine has not been started again since."""
    status = stat_or_none(place)
    if status is None or status.st_size > LONGEST_NOTE_BYTES:
        return None
    try:
        noted = json.loads(plainfiles.read_text(place))
        return float(noted["ahead"]) if boot and noted["boot"] == boot else None
    except (ValueError, KeyError, TypeError):  # whatever stands there was not written by this program
        return None
