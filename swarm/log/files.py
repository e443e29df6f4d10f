"""Where the log's files stand, and the few ways in which they are written whole or not at all."""

from __future__ import annotations

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
        """What stood in place of the log when entry `seq` reported it."""
        return self.folder / f"saved-{seq:04}.md"


def write_all(fd: int, data: bytes, offset: int | None = None) -> None:
    """Writes all of `data`, at `offset` or (None) at the end of a file opened for appending.  Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view) if offset is None else os.pwrite(fd, view, offset)
        view = view[done:]
        offset = None if offset is None else offset + done


def write_new(path: Path, data: bytes) -> Path:
    """The data, synced, in a new file that is ready to be renamed to `path`; nothing is left behind on an OSError."""
    new = path.with_name(f".{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o664)
    try:
        write_all(fd, data)
        os.fsync(fd)
    except OSError:
        new.unlink()
        raise
    finally:
        os.close(fd)
    return new


def rename_over(new: Path, path: Path) -> None:
    """Puts `new` in the place of `path`: whoever opens it sees one or the other."""
    new.replace(path)
    sync_folder(path.parent)


def replace_file(path: Path, data: bytes) -> None:
    rename_over(write_new(path, data), path)


def keep_as(path: Path, kept: Path) -> None:
    """Keeps the file of `path` under a second name too: what a slow editor still writes into it is kept as well."""
    if not path.exists():
        return
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        replace_file(kept, path.read_bytes())
    sync_folder(kept.parent)


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


def read_or_nothing(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
