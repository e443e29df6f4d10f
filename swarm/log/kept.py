"""Files that bore a name of the log until something took their place: whoever has one open may still be writing into it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from swarm.events import Head, Seal
from swarm.log.chain import sha_of
from swarm.log.entry import Entry
from swarm.log.files import Files, read_or_nothing, stat_or_none
from swarm.log.mend import BLANK
from swarm.log.reader import unchanged


@dataclass(slots=True)
class Kept:
    """One such file, and how much of it is in the log."""

    path: Path
    size: int
    sha: str
    full: Path | None = None
    """The full file that holds the same, where a rotation has left it."""
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

    def is_a_copy(self) -> bool:
        """Whether it is what a rotation left, and nobody has written into it since: it stands in the full file."""
        return self.full is not None and read_or_nothing(self.path) == read_or_nothing(self.full)

    def is_in_the_log(self, data: bytes) -> None:
        self.size, self.sha = len(data), sha_of(data)


def kept_files(files: Files, entries: Iterable[Entry]) -> list[Kept]:
    """Those that a log tells of, as far as it tells that they are in it."""
    told: dict[str, tuple[int, Path | None]] = {}
    for entry in entries:
        match entry.event:
            case Seal(file=str(name), upto=upto, n=size):
                told[name] = (size if upto is None else upto), None
            case Head(file=str(name)):
                own = files.path.parent / name
                told[files.saved_name(entry.seq)] = len(read_or_nothing(own)), own
            case _:
                pass
    kept = []
    for name, (size, full) in told.items():
        path = files.path.parent / name
        if path.exists():
            kept.append(Kept(path, size, sha_of(read_or_nothing(path)[:size]), full))
    return kept
