"""Finds and removes folders of finished runs that are no longer needed; never those of a running run, adapters or promoted ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.artifacts.warmstart import FOLDER
from swarm.errors import UserError
from swarm.log import Log, LogError, run_is_alive
from swarm.plainfiles import NotPlain, is_ours, remove_tree
from swarm.rundir import RunFolder, all_runs, resolved
from swarm.state import fold


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that may be removed."""

    path: Path
    bytes: int


def candidates(runs: Path, *, whole_runs: bool, keep: int) -> list[Candidate]:
    """Folders that are no longer needed, oldest run first; the newest `keep` runs are left alone, and all that are not ours or are
    reached through a symbolic link.
    """
    known = [folder for folder in all_runs(runs) if folder.path.parent == resolved(runs)]
    finished = [folder for folder in known[: max(0, len(known) - keep)] if _is_finished(folder)]
    if whole_runs:
        return [Candidate(folder.path, folder_bytes(folder.path)) for folder in finished]
    return [
        Candidate(path, folder_bytes(path))
        for folder in finished
        for path in [*_attempts(folder), *_folders_in(folder.path / "prepared")]
    ]


def _attempts(folder: RunFolder) -> Iterator[Path]:
    for stream in _folders_in(folder.path / "streams"):
        yield from (path for path in _folders_in(stream) if path.name.startswith("t") or path.name == FOLDER)


def _folders_in(place: Path) -> list[Path]:
    """Real folders only; none where the place is a symbolic link itself."""
    if place.is_symlink() or not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink())


def _is_finished(folder: RunFolder) -> bool:
    """True if the run ended by itself; a stopped run (130) may be resumed and keeps its checkpoints."""
    if not is_ours(folder.path):
        return False
    try:
        end = fold(Log(folder.log).entries()).end
    except LogError:
        return False  # nobody knows whether it has
    return not run_is_alive(folder.log) and end is not None and end.rc != 130


def folder_bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def remove(found: Sequence[Candidate]) -> None:
    """Raises UserError for a folder that cannot be removed."""
    for item in found:
        try:
            remove_tree(item.path)
        except NotPlain:
            raise
        except OSError as error:
            raise UserError(str(item.path), f"cannot be removed ({error.strerror})", "ask its owner") from error
