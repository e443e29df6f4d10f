"""COLLABORATION.md and its write-ahead file, kept equal: recovery, mending, appending and rotation.

The write-ahead file says how the newest log file should be, byte for byte: what stands there is recorded.  Whatever else
stands in the Markdown file is somebody's: it is never thrown away.  Every step is ordered so that a crash after it leaves
something that `recover` puts right; who may call this, and when, is `writer.py`'s business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from swarm.events import Seal
from swarm.files import read_or_nothing, replace_file, size_or_none, sync_file, sync_folder, take_place, write_all
from swarm.log.chain import Place, sha_of, walk
from swarm.log.draft import LOG, Draft
from swarm.log.escaping import escape
from swarm.log.kept import Kept, kept_files
from swarm.log.mend import (
    Lacks,
    Replaced,
    Typed,
    compare,
    first_difference,
    missing_in,
    spans,
    typed_in,
    whole_texts,
)
from swarm.log.older import Opening, damaged, newest_text, older_count, scan, statement
from swarm.log.reader import WritersLog
from swarm.log.wal import Wal, image
from swarm.rundir import LogFiles

SETTLE_SECONDS = 0.02
"""A file that somebody is just saving is read again after this time, until it rests."""
SETTLE_TRIES = 50
LOOK_SECONDS = 1.0
"""How long an edit in place may stand that leaves the file's size as it was; any other is met before the next entry."""
HEAD_BYTES = 4096
"""Enough of a file for the head that opens it."""


class Ledger:
    """The files of a log, open for writing; `log` is told all that is written."""

    def __init__(self, files: LogFiles, log: WritersLog, secret: bytes | None, now: Callable[[], float]) -> None:
        self._files, self._log, self._secret, self._now = files, log, secret, now
        self._path = files.path
        self._look_again = 0.0
        """When all bytes are compared again, by the monotonic clock."""
        self._owes = False
        """The last group is recorded, but there was no room to show it in the Markdown file."""
        self._displaced: list[Path] = []
        """What bore a name of the log, and no entry tells of it yet."""
        self._kept: list[Kept] = []
        self._wal = Wal(files.wal)

    @property
    def size_bytes(self) -> int:
        return self._wal.size_bytes

    def draft(self) -> Draft:
        """An empty group behind the last entry."""
        return Draft(self._log.place, self._now())

    # ---- opening -----------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Loads all entries and makes the Markdown file what the write-ahead file says.  Raises LogDamaged."""
        should = newest_text(self._files, self._wal.payload(), torn=self._wal.torn)
        if len(should) > self._wal.size_bytes:
            self._wal.close()
            replace_file(self._files.wal, image(should))
            self._wal = Wal(self._files.wal)
        self._wal.forget_torn()
        if not should:  # whoever made these names may have died before they were on the disk
            sync_folder(self._files.folder)
            sync_folder(self._path.parent)
        self._log.load(should)
        if self._log.place.offset != len(should):
            raise damaged(self._files.wal, should, self._log.place)
        self._kept, self._displaced = kept_files(self._files, self._log)
        self._displaced = [saved for saved in self._displaced if not self._removed_copy(saved)]
        self.look_after(opening=True)
        self._gather_from_full_files()
        self._kept = [kept for kept in self._kept if not self._removed_copy(kept.path)]

    def _removed_copy(self, saved: Path) -> bool:
        """Removes what a rotation has left, or what a crash kept from being put into place, and says whether it was such."""
        if ours := self._is_the_logs_own(read_or_nothing(saved)):
            saved.unlink()
        return ours

    # ---- looking after the Markdown file -----------------------------------------------------------------------------

    def look_after(self, *, opening: bool = False) -> None:
        """Mends and reports what others did to the Markdown file: its size is asked each time, its bytes now and then."""
        if time.monotonic() < self._look_again and size_or_none(self._path) == self._wal.size_bytes:
            return
        self._tell_of_displaced()
        self._compare(opening=opening)
        self._gather_late()

    def _compare(self, *, opening: bool = False) -> None:
        should = self._wal.payload()
        match compare(self._settled(should), should, self._log.last_seq + 1):
            case Lacks(rest):
                self._put_back(rest, quietly=(opening or self._owes) and len(should) - len(rest) >= self._wal.last_at)
            case Typed(tail, torn):
                draft = self.draft()
                draft.seal(tail, torn=torn)
                self.write(draft, standing=tail)
            case Replaced():
                self._put_into_place(self._staged(should), self._path)
                self._tell_of_displaced()
            case None:
                pass
        self._owes = False
        self._look_again = time.monotonic() + LOOK_SECONDS

    def _settled(self, should: bytes) -> bytes:
        """What the Markdown file holds, once nobody is just saving it."""
        found = read_or_nothing(self._path)
        for _ in range(SETTLE_TRIES if found != should else 0):
            time.sleep(SETTLE_SECONDS)
            before, found = found, read_or_nothing(self._path)
            if found == before:
                break
        return found

    def _put_back(self, rest: bytes, *, quietly: bool) -> None:
        """Writes what is missing at the end; a crash between write-ahead and Markdown file is no news."""
        if quietly:
            self._append(rest)
            return
        should = self._wal.payload()
        draft = self.draft()
        self._report(draft, should[: len(should) - len(rest)], should)
        self.write(draft, missing=rest)

    # ---- what stood in the log's place -------------------------------------------------------------------------------

    def _staged(self, text: bytes) -> Path:
        """A file that is to bear a name of the log, for the moment under the name of that which it will displace."""
        number = self._log.last_seq + 1
        while (saved := self._files.saved(number)).exists():
            number += 1
        replace_file(saved, text)  # never half of it, so that after a crash it can be told from somebody's file
        return saved

    def _put_into_place(self, staged: Path, path: Path) -> None:
        """The staged file bears the name `path`; what bore it until this very moment is kept under the other name."""
        if take_place(staged, path):
            sync_file(staged)
            self._displaced.append(staged)
        sync_folder(staged.parent)
        sync_folder(path.parent)

    def _tell_of_displaced(self) -> None:
        """Looks at what was displaced, once nobody else can save it any more; what was typed in it becomes a note."""
        while self._displaced:
            saved = self._displaced[0]
            found = read_or_nothing(saved)
            if not self._is_the_logs_own(found):
                self._tell_of(saved, found)
            self._kept.append(Kept(saved, len(found), sha_of(found)))
            del self._displaced[0]

    def _tell_of(self, saved: Path, found: bytes) -> None:
        draft, name = self.draft(), str(saved.relative_to(self._path.parent))
        full = next((text for text in self._full_texts() if found.startswith(text)), None)
        if full is not None:
            draft.seal(escape(found[len(full) :]), file=name, upto=len(found))
        else:
            if typed := self._typed_in(found):
                draft.seal(escape(typed))
            self._report(draft, found, self._wal.payload(), file=name)
        self.write(draft)

    def _is_the_logs_own(self, found: bytes) -> bool:
        """A full file, as a rotation displaces it, the newest one as it was at some time, or the one that was to follow it."""
        if self._wal.payload().startswith(found) or found in self._full_texts():
            return True
        opening, place = Opening.of(found), self._log.place
        follows = opening is not None and (opening.before.seq, opening.before.chain) == (place.seq, place.chain)
        return follows and len(found) == walk(found, Place(place.seq, place.chain)).place.offset

    def _full_texts(self) -> Iterator[bytes]:
        opening = Opening.of(self._wal.payload())
        while opening:
            text = read_or_nothing(self._files.older(opening.number))[: opening.size]
            yield text
            opening = Opening.of(text)

    def _typed_in(self, found: bytes) -> bytes:
        entries = scan(self._files, self._wal.payload()).entries
        return typed_in(found, whole_texts(entries), [raw.gap for raw in entries if raw.gap])

    def _report(self, draft: Draft, found: bytes, should: bytes, file: str | None = None) -> None:
        opening = Opening.of(should)
        before = opening.before if opening else Place()
        missing = missing_in(found, whole_texts(walk(should, before).entries, before.seq + 1))
        what = (
            f"entries {spans(missing)} were not in the file as written and stand again"
            if missing
            else "nothing was missing"
        )
        kept = f"; the file that stood there is kept as {file}" if file else ""
        fields = {"off": first_difference(found, should), "n": len(found), "sha": sha_of(found), "why": "old-copy"}
        draft.add(LOG, Seal.model_validate({"ref": "-", "body": what + kept, "file": file, **fields}))

    # ---- what is written late ----------------------------------------------------------------------------------------

    def _gather_late(self) -> None:
        """What somebody wrote into a file after something had taken its place becomes a note."""
        for kept in self._kept:
            if (data := kept.read()) is None:
                continue
            if text := kept.late(data, self._typed_in):
                draft = self.draft()
                name = str(kept.path.relative_to(self._path.parent))
                draft.seal(escape(text), file=name, upto=len(data))
                self.write(draft)
            kept.is_in_the_log(data)

    def _gather_from_full_files(self) -> None:
        """The same for what somebody typed into a full file; a clean one takes its place."""
        opening = Opening.of(self._wal.payload())
        while opening:
            path = self._files.older(opening.number)
            if (size_or_none(path) or 0) > opening.size:
                self._put_into_place(self._staged(read_or_nothing(path, opening.size)), path)
            opening = Opening.of(read_or_nothing(path, HEAD_BYTES))
        self._tell_of_displaced()

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(self, draft: Draft, *, standing: bytes = b"", missing: bytes = b"") -> None:
        """Records the draft, then shows it; `standing` is its beginning where that stands in the file already, `missing`
        what should stand before it and does not.

        Raises OSError with nothing of it left.  Where it is recorded and cannot be shown, the next look shows it or says why.
        """
        self._wal.append(draft.data)
        self._log.add(draft.entries, draft.place)
        try:
            self._append(missing + draft.data.removeprefix(standing))
        except OSError:
            self._owes = True

    def _append(self, data: bytes) -> None:
        """One write at the end of the file that bears the name now; an editor may have replaced it a moment ago."""
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o664)
        before = os.lseek(fd, 0, os.SEEK_END)
        try:
            write_all(fd, data)
        except OSError:
            if data.startswith(os.pread(fd, len(data) + 1, before)):
                os.ftruncate(fd, before)  # nothing half-written, and only what is ours
            raise
        finally:
            os.close(fd)

    def rotate(self) -> None:
        """Begins a new file with a head that names the full one; readers see whole files at any moment.

        After an OSError the old file is still the newest, or `look_after` finishes what was begun.
        """
        self._compare()
        self._gather_from_full_files()
        should = self._wal.payload()
        number = older_count(self._files, should) + 1
        replace_file(self._files.older(number), should)  # a file of its own: nobody has it open
        last = self._log.place
        draft = Draft(Place(last.seq, last.chain, 0), self._now())
        draft.head(self._secret, self._files.older_name(number), statement(self._files.older_name(number), should))
        staged = self._staged(draft.data)
        self._look_again = 0.0
        replace_file(self._files.wal, image(draft.data))
        # from here on the new file is the newest, also after a crash
        self._wal.close()
        self._wal = Wal(self._files.wal)
        self._log.add(draft.entries, draft.place)
        self._put_into_place(staged, self._path)
        self._tell_of_displaced()

    def close(self) -> None:
        """Syncs the Markdown file too: who copies the run without its folder has all of it."""
        self._wal.close()
        with suppress(FileNotFoundError):
            sync_file(self._path)
