"""Opens what is in a run folder: the one place that decides what may be opened there at all.

A run folder may come from somebody else.  Its own path is resolved when it is opened (`rundir`), so a symbolic link that is met later, at
the end of a path or on the way there, was put there by somebody and is not followed.  Only regular files and folders are opened: FIFOs,
sockets and devices are refused without waiting for anybody.  What is read whole has a bound.  Nothing is written into a folder of another
user unless that was asked for.  Descriptors are passed on from folder to folder, so that nothing can be exchanged between a check and its use.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from swarm.errors import UserError

FOREIGN = "TOONSWARM_FOREIGN"
"""Set by `swarm --foreign`, and so known to the processes that it starts: run folders of other users are written to as well."""
SMALL_BYTES = 4 << 20
"""More than any JSON file, config or cursor of a run holds."""
LOG_BYTES = 64 << 20
"""More than any file of a log holds: a new one is begun at 1 MiB."""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PASSING = NO_SPACE | {errno.EMFILE, errno.ENFILE}
"""Errors that pass when somebody frees space, or closes what is open."""
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_STEP = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_TYPES = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


class NotPlain(UserError, OSError):
    """What is there is not what this program puts there, or not to be written to by us; nothing was opened."""

    def __init__(self, path: Path, what: str, fix: str) -> None:
        super().__init__(str(path), what, fix)
        self.strerror = what

    def __str__(self) -> str:
        return str(self.args[0])


def may_pass(error: OSError) -> bool:
    """Whether it is worth another try: the disk is full, too many files are open, or somebody has put something in a file's place."""
    return isinstance(error, NotPlain) or error.errno in PASSING


@contextmanager
def folder(path: Path, *, writes: bool = False, make: bool = False, mode: int = 0o777) -> Iterator[int]:
    """A descriptor of the folder for `dir_fd`.  `writes`: something in it will be changed; `make`: missing folders are made.

    Raises NotPlain, OSError.
    """
    whole = Path(os.path.abspath(path))  # noqa: PTH100  not `resolve`, which follows links
    here = os.open("/", _STEP)
    try:
        for place in (*reversed(whole.parents), whole)[1:]:
            below = _below(here, place, mode if make else None)
            os.close(here)
            here = below
        if writes:
            _check_ours(here, path)
        yield here
    finally:
        os.close(here)


def _below(here: int, path: Path, make_mode: int | None) -> int:
    try:
        return os.open(path.name, _STEP, dir_fd=here)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and make_mode is not None:
            _check_ours(here, path)
            with suppress(FileExistsError), _naming(path):
                os.mkdir(path.name, make_mode, dir_fd=here)
            return os.open(path.name, _STEP, dir_fd=here)
        raise _reason(error, path, here) from error


def make_folder(path: Path, mode: int = 0o777) -> None:
    """The folder and those above it that are missing."""
    with folder(path, make=True, writes=True, mode=mode):
        pass


def open_file(path: Path, flags: int = os.O_RDONLY, mode: int = 0o664) -> int:
    """A descriptor of a regular file.  Raises NotPlain, OSError with the whole path."""
    with folder(path.parent, writes=bool(flags & _CHANGES)) as parent:
        descriptor = open_in(parent, path, flags, mode)
    if not stat.S_ISREG(found := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _of_type(path, found)
    return descriptor


def open_in(parent: int, path: Path, flags: int, mode: int = 0o664) -> int:
    """The same in a folder that is open already, without a look at what was opened: its caller must seek in it, which fails for all
    that is no file.  (A stat costs the next write a commit of the inode, see `files.size_or_none`.)
    """
    try:
        return os.open(path.name, flags | _SAFELY, mode, dir_fd=parent)
    except OSError as error:
        raise _reason(error, path, parent) from error


def opener(path: str, flags: int) -> int:
    """For `open(path, opener=opener)`."""
    return open_file(Path(path), flags)


def read_file(path: Path, at_most: int = SMALL_BYTES, size: int | None = None) -> bytes:
    """All of a file, or its first `size` bytes.  Raises NotPlain for one that holds more than `at_most`, OSError."""
    with open(open_file(path), "rb") as file:
        held = os.fstat(file.fileno()).st_size
        data = b"" if size is None and held > at_most else file.read(at_most + 1 if size is None else size)
    if size is None and max(held, len(data)) > at_most:
        raise _too_large(path, held, at_most)
    return data


def read_text(path: Path, at_most: int = SMALL_BYTES) -> str:
    """Raises NotPlain, OSError, UnicodeDecodeError."""
    return read_file(path, at_most).decode("utf-8")


def remove_file(path: Path) -> None:
    """Raises FileNotFoundError where there is none.  A symbolic link is removed, not what it names."""
    with folder(path.parent, writes=True) as parent, _naming(path):
        os.unlink(path.name, dir_fd=parent)


def remove_tree(path: Path, *, ignore_errors: bool = False) -> None:
    """A folder and all in it; a symbolic link in its place is removed itself."""
    try:
        with folder(path.parent, writes=True) as parent, _naming(path):
            if stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
                shutil.rmtree(path.name, dir_fd=parent)
            else:
                os.unlink(path.name, dir_fd=parent)
    except OSError:
        if not ignore_errors:
            raise


def rename(old: Path, new: Path) -> None:
    """As `Path.replace`."""
    with folder(old.parent, writes=True) as here, folder(new.parent, writes=True) as there, _naming(new):
        os.replace(old.name, new.name, src_dir_fd=here, dst_dir_fd=there)


def link(old: Path, new: Path) -> None:
    """A second name of a file.  Raises FileExistsError."""
    with folder(old.parent) as here, folder(new.parent, writes=True) as there, _naming(new):
        os.link(old.name, new.name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)


def is_ours(path: Path) -> bool:
    """Whether a folder may be written to, as far as its owner is concerned."""
    return path.stat().st_uid == os.geteuid() or bool(os.environ.get(FOREIGN))


def check_ours(path: Path) -> None:
    """Raises NotPlain for a folder that we may not write to."""
    with folder(path, writes=True):
        pass


def check_file(path: Path, at_most: int | None = None) -> None:
    """For what only another library can open, by its name.  Raises NotPlain, also for one that holds more than `at_most`, OSError."""
    descriptor = open_file(path)
    held = os.fstat(descriptor).st_size
    os.close(descriptor)
    if at_most is not None and held > at_most:
        raise _too_large(path, held, at_most)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An error names the whole path."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, NotPlain):
            error.filename = str(path)
            error.filename2 = None
        raise


def _check_ours(descriptor: int, path: Path) -> None:
    owner = os.fstat(descriptor).st_uid
    if owner != os.geteuid() and not os.environ.get(FOREIGN):
        fix = "act through its coordinator with a key of yours, or write there as well: `swarm --foreign ...`"
        raise NotPlain(path, f"belongs to another user (uid {owner})", fix)


def _reason(error: OSError, path: Path, parent: int) -> OSError:
    """A link or a special file has its own error; any other names the whole path."""
    try:
        found = os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        found = stat.S_IFREG
    if stat.S_ISLNK(found) or error.errno in {errno.ENXIO, errno.ELOOP, errno.ENODEV}:
        return _of_type(path, found)
    error.filename = str(path)
    return error


def _too_large(path: Path, held: int, at_most: int) -> NotPlain:
    return NotPlain(path, f"holds {held:,} bytes, and no such file of a run has more than {at_most:,}", "move it away")


def _of_type(path: Path, mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    what = _TYPES.get(stat.S_IFMT(mode), "a device")
    return NotPlain(path, f"is {what}, which is never opened or followed in a run folder", "move it away")
