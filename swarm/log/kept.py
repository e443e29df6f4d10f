"""Files that were replaced as (a part of) the log and kept: a program that still has one open may go on writing into it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swarm.events import Seal
from swarm.files import read_or_nothing, stat_or_none
from swarm.log.chain import sha_of
from swarm.log.mend import BLANK
from swarm.log.reader import Log, unchanged
from swarm.rundir import LogFiles


@dataclass(slots=True)
class Kept:
    """One such file, and how much of it is recorded in the log."""

    path: Path
    size: int
    sha: str
    is_reported: bool = False
    """Whether an entry says that it is kept: then it stays, also where the log holds all of it since."""
    seen: os.stat_result | None = None

    def read(self) -> bytes | None:
        """Its bytes if it was written to since the last call; None otherwise."""
        now = stat_or_none(self.path)
        if now is None or (self.seen and unchanged(now, self.seen)):
            return None
        self.seen = now
        return read_or_nothing(self.path)

    def late(self, data: bytes, typed_in: Callable[[bytes], bytes]) -> bytes:
        """The part that is not in the log yet; if the file was rewritten, `typed_in` separates new text from the log's own."""
        if sha_of(data[: self.size]) != self.sha:
            return typed_in(data)
        text = data[self.size :]
        return text.lstrip(b"\0") if text.strip(BLANK) else b""

    def is_in_the_log(self, data: bytes) -> None:
        self.size, self.sha = len(data), sha_of(data)


def kept_files(files: LogFiles, log: Log) -> tuple[list[Kept], list[Path]]:
    """The kept files that a seal names, with how much of each is recorded; and those that no entry names yet."""
    there = sorted(files.folder.glob("saved-*.md"))
    recorded_bytes: dict[Path, int] = {}
    reported: set[Path] = set()
    for entry in log.entries() if there else ():
        match entry.event:
            case Seal(file=str(name), upto=upto, n=size, why=why):
                path = files.path.parent / name
                recorded_bytes[path] = size if upto is None else upto
                reported |= {path} if why == "old-copy" else set()
            case _:
                pass
    kept = [
        Kept(path, size, sha_of(read_or_nothing(path, size)), path in reported)
        for path, size in recorded_bytes.items()
        if path in there
    ]
    return kept, [path for path in there if path not in recorded_bytes]
