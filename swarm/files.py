"""Writes files of a run completely or not at all, and reads files that another process may be writing.

All are opened through `plainfiles`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from contextlib import suppress
from pathlib import Path

from swarm import plainfiles
from swarm.errors import UserError


def write_all(fd: int, data: bytes, offset: int | None = None) -> None:
    """Write all of `data`, at `offset` or (None) at the end of a file opened for appending.  Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view) if offset is None else os.pwrite(fd, view, offset)
        view = view[done:]
        offset = None if offset is None else offset + done


def replace_file(path: Path, data: bytes, *, mode: int = 0o664, mark: str = "new") -> None:
    """Write a file in one step: a reader finds either the old content or all of `data`, and so does a restart after a power cut.

    `mark` names the temporary file; where several processes may write the same file, each needs its own.
    Raises OSError with the file's name, and then no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{mark}")
    try:
        descriptor = plainfiles.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        plainfiles.rename(temporary, path)
    except OSError as error:
        error.filename = str(path)  # os.write reports no file name
        raise
    finally:
        with suppress(OSError):
            plainfiles.remove_file(temporary)
    sync_folder(path.parent)


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """`replace_file` for text, also where several processes may write the same file."""
    replace_file(path, text.encode(), mode=mode, mark=f"{os.getpid()}.staged")


def write_named(path: Path, text: str) -> None:
    """Write a file that a person has named, which is in no run folder: their own links are followed.  Raises OSError."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.staged")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


def take_place(new: Path, path: Path) -> bool:
    """Put the file `new` at `path`; the file that stood there is `new` afterwards.

    False if there was none: then `new` no longer exists.
    """
    while True:
        try:
            if not exchange(new, path):
                aside = new.with_name(f".{new.name}.aside")
                with suppress(FileNotFoundError):
                    plainfiles.remove_file(aside)
                plainfiles.link(path, aside)
                plainfiles.rename(new, path)
                plainfiles.rename(aside, new)
            return True
        except FileNotFoundError:
            try:
                plainfiles.link(new, path)  # fails if somebody has just saved a file there; a rename would replace it
            except FileExistsError:
                continue
            plainfiles.remove_file(new)
            return False


def exchange(one: Path, other: Path) -> bool:
    """Exchange two files in one step; False where the system cannot (NFS, old C libraries).

    Raises FileNotFoundError where one of them is missing.
    """
    swap = 2  # RENAME_EXCHANGE of Linux' renameat2(2)
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    with plainfiles.folder(one.parent, writes=True) as here, plainfiles.folder(other.parent, writes=True) as there:
        if rename(here, os.fsencode(one.name), there, os.fsencode(other.name), swap) == 0:
            return True
    if ctypes.get_errno() == errno.ENOENT:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(other))
    return False


def stat_or_none(path: Path) -> os.stat_result | None:
    """Of what bears this name, not of what a symbolic link names."""
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def size_or_none(path: Path, parent: int) -> int | None:
    """The file's size in bytes, read from an open descriptor; `parent` is the descriptor of its folder.

    A stat would also read its time stamps; on Linux >= 6.13 (multigrain timestamps, `fill_mg_cmtime`) the next write then
    updates the inode and its journal entry at once, which makes a durable append a third slower.
    """
    try:
        fd = plainfiles.open_in(parent, path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def read_or_nothing(path: Path, size: int | None = None) -> bytes:
    """A file of the log, or its first `size` bytes.  Empty if there is no file, as for a moment while an editor saves it."""
    try:
        return plainfiles.read_file(path, plainfiles.LOG_BYTES, size)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def sync_folder(folder: Path) -> None:
    """Make the names in it durable; it may be any folder, since nothing in it is read or written."""
    _sync(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def sync_file(path: Path) -> None:
    _sync(plainfiles.open_file(path))


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, object]:
    """Raises UserError if the file is missing or holds no JSON object."""
    try:
        value = json.loads(plainfiles.read_text(path))
    except plainfiles.NotPlain:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(str(path), f"cannot be read ({error})", "the run folder is not whole") from error
    if not isinstance(value, dict):
        raise UserError(str(path), "is no JSON object", "the run folder is not whole")
    return value
