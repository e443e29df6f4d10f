"""The lock that makes one process the log's writer: an flock on a file beside the log, never on the log itself.

Editors replace the file they save, so a lock on it would guard an inode that nobody reads.  The kernel lets an flock go
when its holder dies, however it dies; a lock is never stale and need never be removed by hand.  Locks are inherited by `fork`:
start processes by spawning.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from pathlib import Path

from swarm import plainfiles
from swarm.files import stat_or_none
from swarm.log.errors import LogDamaged, LogHeld
from swarm.surroundings import read

RETRY_SECONDS = 0.005
LEAST_TRIES = 5
"""Even without waiting: `run_is_alive` holds the lock for some microseconds."""
BRIEFLY = "briefly "


class Lock:
    """Held from construction to `release`.  Raises LogHeld when another process still holds it after `wait_seconds`.

    `brief`: for one append and not for a run; the lock file says so.
    """

    def __init__(self, log: Path, file: Path, wait_seconds: float, *, brief: bool = False) -> None:
        self._log, self._file = log, file
        plainfiles.make_folder(file.parent)
        give_up = time.monotonic() + wait_seconds
        tries = 0
        while (held := self._try()) is None:
            tries += 1
            if tries >= LEAST_TRIES and time.monotonic() >= give_up:
                raise LogHeld(log, living_holder(file))
            time.sleep(RETRY_SECONDS)
        self._fd, self._stat = held, os.fstat(held)
        holder = f"{BRIEFLY if brief else ''}process {os.getpid()}\n".encode()
        try:
            os.pwrite(self._fd, holder, 0)
            os.ftruncate(self._fd, len(holder))
        except OSError:
            self.release()
            raise

    def _try(self) -> int | None:
        """A locked descriptor of the file that has the name now, or None."""
        fd = open_lock(self._file)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if same_file(os.fstat(fd), self._file):
                return fd
        except BlockingIOError:
            pass
        os.close(fd)
        return None

    def check(self) -> None:
        """Raises LogDamaged if the lock file was removed: another process may be writing by now."""
        if not same_file(self._stat, self._file):
            raise LogDamaged(self._log, f"{self._file} was removed while the log was being written; open the log again")

    def release(self) -> None:
        os.close(self._fd)


def is_held(file: Path) -> bool:
    """True while some process holds the lock."""
    try:
        fd = plainfiles.open_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return is_listed(file)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def holder_of(file: Path) -> str:
    try:
        return plainfiles.read_file(file, size=80).decode(errors="replace").strip()
    except OSError:  # only the error's wording depends on it
        return ""


def living_holder(file: Path) -> str:
    """What the file says of its holder; nothing if that process has gone, so that somebody else holds it."""
    holder = holder_of(file)
    found = re.search(r"process ([0-9]{1,9})$", holder)
    if found and (pid := int(found[1])):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except OSError:
            pass  # it lives and is another user's
    return holder


def open_lock(file: Path) -> int:
    """A descriptor for flock(2) of a file that only those can open who may write beside it.

    Whoever can open a file, if only for reading, can lock it and so keep its owner out.
    """
    with plainfiles.folder(file.parent) as parent:
        mode = 0o660 if os.fstat(parent).st_mode & stat.S_IWGRP else 0o600
    fd = plainfiles.open_file(file, os.O_RDWR | os.O_CREAT, mode)
    found = os.fstat(fd)
    if stat.S_IMODE(found.st_mode) & ~mode and found.st_uid == os.geteuid():  # made by an earlier version
        os.fchmod(fd, mode)
    return fd


def is_listed(file: Path) -> bool:
    """Whether the kernel lists a lock on a file that we may not open (proc_locks(5)); False where it lists none."""
    found, listed = stat_or_none(file), read(Path("/proc/locks"))
    if found is None:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(words[1:2] == ["FLOCK"] and place in words for words in map(str.split, listed.splitlines()))


def same_file(known: os.stat_result, path: Path) -> bool:
    """Whether `path` is still the file of this stat (of an open descriptor, so that its inode number cannot be reused)."""
    now = stat_or_none(path)
    return now is not None and os.path.samestat(known, now)
