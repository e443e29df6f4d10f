"""The errors of the shared log.

    LogError                 anything below; also an entry that cannot be written (a bad author, an unknown field type)
    ├── LogHeld              another process is the writer
    ├── LogFull (+ OSError)  no space: nothing was written, try again later
    ├── LogBlocked           a file of the log cannot be opened now: nothing was written, try again later
    └── LogDamaged           entries are changed or missing, or the log's own folder was removed

The command line prints them as they are: where, what, and what to do.
"""

from __future__ import annotations

import errno
from pathlib import Path


class LogError(Exception):
    """The shared log cannot do what was asked."""


class LogHeld(LogError):
    """Another process is the writer; `holder` is what the lock file says of it (empty if unknown)."""

    def __init__(self, path: Path, holder: str) -> None:
        self.holder = holder
        who = holder or "a program that has not written its name into the lock file"
        super().__init__(f"{path}: the log is held by {who}; append through it, or wait until it ends")


class LogFull(LogError, OSError):
    """The file system has no space: nothing of the group was written; it can be appended again when there is space."""

    def __init__(self, path: Path, cause: OSError) -> None:
        self.path, self.why = path, cause.strerror
        super().__init__(cause.errno or errno.ENOSPC, cause.strerror, str(path))

    def __str__(self) -> str:
        return f"{self.path}: no space to append ({self.why}), nothing was written; free some space and try again"


class LogBlocked(LogError):
    """A file of the log cannot be opened now: something else stands in its place, or too many files are open."""


class LogDamaged(LogError):
    """Entries are changed or missing; `seq` is the first one concerned."""

    def __init__(self, path: Path, why: str, *, seq: int = 0, line: int = 0) -> None:
        self.path, self.seq, self.line, self.why = path, seq, line, why
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{where}: {why}")
