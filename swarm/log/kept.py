"""LogFiles that bore a name of the log until something took their place: whoever has one open may still be writing into it."""

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
    """One such file, and how much of it is in the log."""

    path: Path
    size: int
    sha: str
    seen: os.stat_result | None = None

    def read(self) -> bytes | None:
        """What it holds if it has been written to since the last look."""
        now = stat_or_none(self.path)
        if now is None or (self.seen and unchanged(now, self.seen)):
            return None
        self.seen = now
        return read_or_nothing(self.path)

    def late(self, data: bytes, typed_in: Callable[[bytes], bytes]) -> bytes:
        """What of it is not in the log yet; `typed_in` knows the log's own text where it was written anew."""
        if sha_of(data[: self.size]) != self.sha:
            return typed_in(data)
        text = data[self.size :]
        return text.lstrip(b"\0") if text.strip(BLANK) else b""

    def is_in_the_log(self, data: bytes) -> None:
        self.size, self.sha = len(data), sha_of(data)


def kept_files(files: LogFiles, log: Log) -> tuple[list[Kept], list[Path]]:
    """Those that the log tells of, as far as it tells that they are in it; and those of which it does not tell."""
    there = sorted(files.folder.glob("saved-*.md"))
    told: dict[Path, int] = {}
    for entry in log.entries() if there else ():
        match entry.event:
            case Seal(file=str(name), upto=upto, n=size):
                told[files.path.parent / name] = size if upto is None else upto
            case _:
                pass
    kept = [Kept(path, size, sha_of(read_or_nothing(path, size))) for path, size in told.items() if path in there]
    return kept, [path for path in there if path not in told]
