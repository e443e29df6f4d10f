"""Where the log's files stand, and the few ways in which they are written whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Files:
    """The newest file `path`, and beside it the folder with all that belongs to it."""

    path: Path

    @property
    def folder(self) -> Path:
        return self.path.parent / "collaboration"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def wal(self) -> Path:
        return self.folder / "wal"

    def older(self, number: int) -> Path:
        """A full file; the first one is number 1."""
        return self.path.parent / self.older_name(number)

    def older_name(self, number: int) -> str:
        return f"collaboration/{number:04}.md"

    def saved(self, seq: int) -> Path:
        """What stood in place of the log when entry `seq` was written, which tells of it."""
        return self.path.parent / self.saved_name(seq)

    def saved_name(self, seq: int) -> str:
        return f"collaboration/saved-{seq:04}.md"


def write_all(fd: int, data: bytes, offset: int | None = None) -> None:
    """Writes all of `data`, at `offset` or (None) at the end of a file opened for appending.  Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view) if offset is None else os.pwrite(fd, view, offset)
        view = view[done:]
        offset = None if offset is None else offset + done


def write_synced(path: Path, data: bytes) -> None:
    """A file that nobody looks at yet, with this data on the disk; nothing is left behind on an OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o664)
    try:
        write_all(fd, data)
        os.fsync(fd)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(fd)


def replace_file(path: Path, data: bytes) -> None:
    """Whoever opens `path` sees what it was or all of the data, and it lasts."""
    new = path.with_name(f".{path.name}.new")
    write_synced(new, data)
    new.replace(path)
    sync_folder(path.parent)


def take_place(new: Path, path: Path) -> bool:
    """The file `new` bears the name `path` from here on, and `new` is whatever bore it until this very moment.

    False if there was none; then there is no `new` any more.
    """
    while True:
        try:
            if not exchange(new, path):
                aside = new.with_name(f".{new.name}.aside")
                aside.unlink(missing_ok=True)
                os.link(path, aside)
                new.replace(path)
                aside.replace(new)
            return True
        except FileNotFoundError:
            try:
                os.link(new, path)  # never over a file that somebody has just saved
            except FileExistsError:
                continue
            new.unlink()
            return False


def exchange(one: Path, other: Path) -> bool:
    """Two names change places in one step; False where that cannot be had (NFS, old C libraries).

    Raises FileNotFoundError where one of them is missing.
    """
    here, swap = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux' renameat2(2)
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
        return True
    if ctypes.get_errno() == errno.ENOENT:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(other))
    return False


def stat_or_none(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def size_or_none(path: Path) -> int | None:
    """The file's size in bytes, asked of an open descriptor.

    A stat would also ask for its time stamps, and on Linux >= 6.13 (multigrain timestamps, `fill_mg_cmtime`) the write
    after that has to give the inode a finer one and put it into the journal at once: a third of a durable append.
    """
    try:
        fd = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def read_or_nothing(path: Path, size: int = -1) -> bytes:
    """Its first bytes, or all; nothing also for a moment in which an editor has moved it away to save it anew."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def sync_folder(folder: Path) -> None:
    """Make the names in it last."""
    sync_file(folder)


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
