"""Finds and removes folders of finished runs that are no longer needed; never those of a running run, adapters or promoted ones."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import UserError
from swarm.log import Log, run_is_alive
from swarm.rundir import RunFolder, all_runs
from swarm.state import fold


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder that may be removed."""

    path: Path
    bytes: int


def candidates(runs: Path, *, whole_runs: bool, keep: int) -> list[Candidate]:
    """Folders that are no longer needed, oldest run first; the newest `keep` runs are left alone."""
    known = list(all_runs(runs))
    finished = [folder for folder in known[: max(0, len(known) - keep)] if _is_finished(folder)]
    if whole_runs:
        return [Candidate(folder.path, folder_bytes(folder.path)) for folder in finished]
    return [
        Candidate(path, folder_bytes(path))
        for folder in finished
        for path in [*sorted(folder.path.glob("streams/*/t*")), *sorted(folder.path.glob("prepared/*"))]
        if path.is_dir() and not path.is_symlink()
    ]


def _is_finished(folder: RunFolder) -> bool:
    """True if the run ended by itself; a stopped run (130) may be resumed and keeps its checkpoints."""
    end = fold(Log(folder.log).entries()).end
    return not run_is_alive(folder.log) and end is not None and end.rc != 130


def folder_bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def remove(found: Sequence[Candidate]) -> None:
    """Raises UserError for a folder that cannot be removed."""
    for item in found:
        try:
            shutil.rmtree(item.path)
        except OSError as error:
            raise UserError(str(item.path), f"cannot be removed ({error.strerror})", "ask its owner") from error
