"""Files by which an agent backs what it states: kept in the run folder with their hashes."""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from swarm import events as ev
from swarm import rundir
from swarm.errors import UserError
from swarm.files import sync_folder
from swarm.plainfiles import make_folder, opener, remove_file, rename
from swarm.rundir import RunFolder
from swarm.weights import adapter_sha256, sha256_in_run


def kept(folder: RunFolder, by: str, path: str | Path, token: int) -> tuple[str, str]:
    """The path inside the run folder and the sha256; a file from elsewhere is copied.  Raises UserError if it cannot be read."""
    source = Path(path) if Path(path).exists() else folder.path / path
    try:
        if not rundir.resolved(source).is_relative_to(folder.path):
            source = _copied(source, folder.path / "agents" / by, token)
        found = rundir.resolved(source)
        return str(found.relative_to(folder.path)), sha256_in_run(found)
    except OSError as error:
        raise UserError(str(path), f"cannot be kept ({error.strerror})", "name a file that can be read") from error


def sha256_to_judge(folder: RunFolder, candidate: ev.Trained | ev.Back, result: str) -> str:
    """Of the files as they are; where a FAIL is about files that are gone, what their maker promised."""
    try:
        return adapter_sha256(folder.inside(candidate.path))
    except UserError:
        if result != "FAIL":
            raise
    except OSError as error:
        if result != "FAIL":
            fix = "judge it where it is whole, or say FAIL"
            raise UserError(str(error.filename), f"cannot be read ({error.strerror})", fix) from error
    return candidate.sha256


def _copied(source: Path, folder: Path, token: int) -> Path:
    """A copy named by its content, so that a file which an entry refers to is never overwritten."""
    make_folder(folder)
    staged = folder / f".{secrets.token_hex(8)}.staged"
    try:
        with source.open("rb") as original, open(staged, "xb", opener=opener) as copy:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fsync(copy.fileno())
        found = folder / f"{token}-{sha256_in_run(staged)[:12]}-{source.name}"
        rename(staged, found)
    finally:
        with suppress(OSError):
            remove_file(staged)
    sync_folder(folder)
    return found
