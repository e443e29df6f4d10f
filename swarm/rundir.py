"""The paths of a run: its folder, and a short private folder for its sockets."""

from __future__ import annotations

import errno
import getpass
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import UserError
from swarm.event import NAME, RESERVED
from swarm.files import sync_folder, write_whole
from swarm.plainfiles import make_folder, read_text
from swarm.surroundings import private_folder

CHECKPOINT = re.compile(r"t[0-9]{1,18}/checkpoint-[0-9]{1,18}")
NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""Errors of the system for files that belong to another user."""


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The paths of a log: its newest file `path`, and the folder beside it with the other files."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", resolved(self.path.parent) / self.path.name)

    @property
    def folder(self) -> Path:
        return self.path.parent / "collaboration"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def wal(self) -> Path:
        return self.folder / "wal"

    @property
    def clock(self) -> Path:
        """How far log time was ahead of the time since the machine's start."""
        return self.folder / "clock.json"

    def older(self, number: int) -> Path:
        """A file closed by rotation; the first one is number 1."""
        return self.path.parent / self.older_name(number)

    def older_name(self, number: int) -> str:
        return f"collaboration/{number:04}.md"

    def saved(self, seq: int) -> Path:
        """A copy of the file that had replaced the log when entry `seq`, which reports it, was written."""
        return self.path.parent / self.saved_name(seq)

    def saved_name(self, seq: int) -> str:
        return f"collaboration/saved-{seq:04}.md"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run's folder; every path in the log is relative to it."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", resolved(self.path))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        """Every setting with its origin."""
        return self.path / "config.yaml"

    @property
    def log(self) -> Path:
        return self.path / "COLLABORATION.md"

    @property
    def is_run(self) -> bool:
        """Whether there is a log here; if its file was removed, it is still complete in its write-ahead file.

        Raises PermissionError where we may not read.
        """
        return self.log.exists() or LogFiles(self.log).wal.exists()

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.db"

    @property
    def inputs(self) -> Path:
        """What each stream is made of, as hashes: equal ones, the same training."""
        return self.path / "inputs.json"

    @property
    def layout(self) -> Path:
        """Which workers the coordinator starts, on which devices."""
        return self.path / "layout.json"

    @property
    def connect(self) -> Path:
        """The owner's join file; readable by the owner only."""
        return self.path / "connect.json"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def log_key(self) -> Path:
        return self.keys / "log.key"

    def log_secret(self, *, make: bool = True) -> bytes | None:
        """The key that signs the heads of the log, made by the run's owner; None for users who may not read it.

        Raises UserError if the file is not a key, OSError if the owner's key cannot be made: the run would stay unsigned.
        """
        path = self.log_key
        try:
            if make and not path.exists() and self.path.stat().st_uid == os.geteuid():
                make_folder(path.parent, mode=0o700)
                write_whole(path, secrets.token_hex(32), mode=0o600)
            return bytes.fromhex(read_text(path))
        except OSError as error:
            if error.errno not in {errno.ENOENT, *NOT_OURS}:
                raise
            return None
        except ValueError as error:
            fix = "restore it, or move it away: the heads signed so far cannot be verified then"
            raise UserError(str(path), "is not a key", fix) from error

    @property
    def workers(self) -> Path:
        """The folder with the output of each worker process."""
        return self.path / "workers"

    @property
    def processes(self) -> Path:
        """The file that names the worker processes of the last coordinator."""
        return self.path / "workers.json"

    @property
    def promoted(self) -> Path:
        return self.path / "promoted"

    def stream(self, name: str) -> Path:
        return self.path / "streams" / name

    def checkpoints(self, stream: str) -> list[str]:
        """Complete checkpoints of all attempts at a stream, highest step first.

        Read from the disk and not from the log: a worker that outlived its coordinator saved checkpoints it could not report.
        """
        there = [path.parent for path in self.stream(stream).glob("t*/checkpoint-*/manifest.json")]
        found = [path for path in there if CHECKPOINT.fullmatch(f"{path.parent.name}/{path.name}")]
        found.sort(key=lambda path: (int(path.name.partition("-")[2]), int(path.parent.name[1:])), reverse=True)
        return [str(path.relative_to(self.path)) for path in found]

    def inside(self, relative: str) -> Path:
        """The path that an entry names.

        Raises UserError if it is outside the run folder, also through a symbolic link.
        """
        path = self.path / relative
        if not resolved(path).is_relative_to(self.path):
            raise UserError(str(path), "leads out of the run folder", "name a path inside it")
        return path

    def sockets(self) -> Path:
        """The private folder for this run's sockets, made if necessary (an ipc path holds 107 bytes)."""
        # not tempfile.gettempdir(): that tries to write a file, and a full disk has no room for one
        return private_folder(hashlib.blake2b(str(self.path.resolve()).encode(), digest_size=6).hexdigest())


def resolved(path: Path) -> Path:
    """Without symbolic links (`Path.resolve` raises on a loop of them): one that is met below it later was put there by somebody."""
    return Path(os.path.realpath(path))


def create(runs: Path, name: str) -> RunFolder:
    """A new, empty run folder `runs/<name>-<month day>-<hour minute>-<random>`.  Raises UserError where none can be made."""
    stamp = time.strftime("%m%d-%H%M")
    folder = runs.absolute() / f"{name}-{stamp}-{secrets.token_hex(2)}"
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True)
        for path in new:
            sync_folder(path.parent)
    except OSError as error:
        fix = "name a folder that you may write in (`runs_dir` in a config, `swarm open --runs`)"
        raise UserError(str(runs), f"no run can be made there ({error.strerror})", fix) from error
    return RunFolder(folder.resolve())


def all_runs(runs: Path) -> Iterator[RunFolder]:
    """Every run below `runs`, oldest first by the time it was created."""
    found = [RunFolder(path.resolve()) for path in runs.glob("*") if _is_readable_run(path)]
    yield from sorted(found, key=_created)


def _is_readable_run(path: Path) -> bool:
    """Whether this is a run that we may read; one that we may not must not hide the others."""
    try:
        return RunFolder(path).is_run
    except OSError:
        return False


def _created(folder: RunFolder) -> float:
    """The time of a file that is written once; where we may not read one, that of the last log entry."""
    for path in (folder.config, folder.log_key, folder.log, LogFiles(folder.log).wal):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def runs_here() -> Path:
    """The `runs` folder of this folder or of the nearest one above it that has runs, as git finds its own; else ./runs."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if next(all_runs(folder / "runs"), None) is not None:
            return folder / "runs" if folder != here else Path("runs")
    return Path("runs")


def version_in(promoted: Path) -> str | None:
    """Of a promoted folder by its `lineage.json`; None where an older version of this program wrote it, or it cannot be read."""
    try:
        version = json.loads(read_text(promoted / "lineage.json"))["promoted"]["version"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return str(version)


def promoted_as(version: str, runs: Path) -> Path | None:
    """The promoted folder of that version below `runs`; None where there is none (any more)."""
    return next((path for path in sorted(runs.glob("*/promoted")) if version_in(path) == version), None)


def runs_of(named: Path | None) -> Path:
    """The folder of runs that a person named, by default `runs_here()`.  Raises UserError where the named one is none."""
    if named is not None and not named.is_dir():
        raise UserError("--runs", f"there is no folder {named}", "name the folder that holds the runs")
    return runs_here() if named is None else named


def find(run: str | None, runs: Path | None = None) -> RunFolder:
    """The run that a person means: a path, a name below `runs` (by default `runs_here()`), or without one the newest there.

    Raises UserError.
    """
    runs = runs_here() if runs is None else runs
    if run is None:
        known = list(all_runs(runs))
        if not known:
            raise UserError(str(runs), "holds no run", "start one with `swarm run CONFIG`, or name its folder")
        return known[-1]
    for path in (Path(run), runs / run):
        if RunFolder(path).is_run:
            return RunFolder(path.resolve())
    near = [r.name for r in all_runs(runs) if r.name.startswith(run)]
    if len(near) == 1:
        return RunFolder((runs / near[0]).resolve())
    hint = f"it could be {', '.join(near[:4])}" if near else "`swarm runs` lists the runs"
    raise UserError(run, "no such run", hint)


def is_name(text: str) -> bool:
    return re.fullmatch(NAME, text) is not None


def checked_name(text: str, where: str = "--as") -> str:
    """The name itself.  Raises UserError if it is not valid."""
    if not is_name(text):
        raise UserError(where, f"{text!r} is not a valid name", "use [a-z0-9][a-z0-9._-]*, at most 64 characters")
    if text in RESERVED:
        raise UserError(where, f"{text} is a reserved name", "take another name")
    return text


def user_name() -> str:
    """The name of the operating system's user, in the form of a log name."""
    try:
        name = getpass.getuser().lower()
    except (OSError, KeyError):
        name = ""
    return re.sub(r"[^a-z0-9._-]", "-", name).lstrip("-._")[:64] or "owner"
