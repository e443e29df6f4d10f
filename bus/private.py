"""Reads and writes files that only their owner may open: the key files."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from bus.errors import BusError

_MAX_FILE_BYTES = 4 << 20


def check_folder(folder: Path) -> None:
    try:
        status = os.lstat(folder)
    except OSError as error:
        raise BusError(f"{folder}: {error.strerror}; the members' list must be in a private folder") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise BusError(f"{folder}: must be a folder of yours that nobody else can enter; chmod 700 it")


def read_private(path: Path) -> dict[str, object]:
    """A JSON object from a file that this user owns and nobody else may open. Owner and mode are checked on the open descriptor."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BusError(f"{path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise BusError(f"{path}: must be a plain file of yours")
        if status.st_mode & 0o077:
            raise BusError(
                f"{path}: holds a secret key and others can open it (mode {status.st_mode & 0o777:o}); chmod 600 it, then invite anew"
            )
        data = file.read(_MAX_FILE_BYTES + 1)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BusError(f"{path}: not JSON: {error}") from error
    if len(data) > _MAX_FILE_BYTES or not isinstance(values, dict):
        raise BusError(f"{path}: not a JSON object of at most {_MAX_FILE_BYTES} bytes")
    return values


def open_private(path: Path) -> int:
    """A descriptor for reading and writing of a plain file, made with mode 0600 if necessary.  Raises OSError, without waiting for anybody."""
    flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    return descriptor


def write_private(path: Path, values: dict[str, object]) -> None:
    """Write the file in one step, mode 0600. Raises OSError with the file's name; the temporary file is removed then.

    `swarm.files` has such a function too; `bus` is below `swarm` and may not import it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # os.write reports no file name
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()
