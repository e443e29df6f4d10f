"""COLLABORATION.md and its write-ahead file, kept equal: recovery, mending, appending and rotation.

The payload of the write-ahead file is what the newest log file should hold, byte for byte.  Anything else in the Markdown file
was written by somebody and is never thrown away.  The steps are ordered so that `recover` can complete them after a crash at any
point; who may call this, and when, is `writer.py`'s business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from swarm.events import Seal
from swarm.files import (
    read_or_nothing,
    replace_file,
    size_or_none,
    stat_or_none,
    sync_file,
    sync_folder,
    take_place,
    write_all,
)
from swarm.log.chain import Place, sha_of, walk
from swarm.log.draft import LOG, Draft
from swarm.log.entry import implied_facts, texts_of
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
from swarm.log.same import Stated
from swarm.log.wal import Wal, image
from swarm.plainfiles import open_in, remove_file
from swarm.rundir import LogFiles

SETTLE_SECONDS = 0.02
"""A file that somebody is just saving is read again after this time, until it no longer changes."""
SETTLE_TRIES = 50
LOOK_SECONDS = 1.0
"""How long an edit may go unnoticed that leaves the file's size as it was; any other is noticed before the next entry."""
HEAD_BYTES = 4096
"""Enough of a file for the head that opens it."""


class Ledger:
    """The files of a log, open for writing; all that is written is added to `log`."""

    def __init__(self, files: LogFiles, log: WritersLog, secret: bytes | None, now: Callable[[], float]) -> None:
        self._files, self._log, self._secret, self._now = files, log, secret, now
        self._path = files.path
        self._look_again = 0.0
        """When all bytes are compared again, by the monotonic clock."""
        self._owes = False
        """The last group is in the write-ahead file, but there was no space for it in the Markdown file."""
        self._displaced: list[Path] = []
        """Replaced files of the log that no entry names yet."""
        self._kept: list[Kept] = []
        self._wal = Wal(files.wal)
        self._beside = os.open(files.path.parent, os.O_DIRECTORY | os.O_CLOEXEC)
        """The run folder: for a group of entries, the log file is opened in it at the cost of one name."""
        self._known: Stated | None = None

    @property
    def size_bytes(self) -> int:
        return self._wal.size_bytes

    def draft(self) -> Draft:
        """An empty group behind the last entry."""
        now, place = self._now(), self._log.place
        return Draft(place, now, before=self._log.last_time if place.offset else None, stated=self._stated)

    def _stated(self) -> Stated:
        """What the newest file states, for entries that refer to it; read when it is first wanted."""
        if self._known is None:
            self._known = Stated()
            opening = Opening.of(self._wal.payload())
            for entry in self._log.entries(opening.before.seq if opening else 0):
                facts = texts_of(entry.event)
                self._known.add(
                    entry.seq, entry.event.kind, facts, implied_facts(type(entry.event), entry.event.stream, facts)
                )
        return self._known

    # ---- opening -----------------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Loads all entries and makes the Markdown file equal to the write-ahead file's payload.  Raises LogDamaged."""
        should = newest_text(self._files, self._wal.payload(), torn=self._wal.torn)
        if len(should) > self._wal.size_bytes:
            self._wal.close()
            replace_file(self._files.wal, image(should))
            self._wal = Wal(self._files.wal)
        self._wal.forget_torn()
        if not should:  # the process that created these names may have died before they were on the disk
            sync_folder(self._files.folder)
            sync_folder(self._path.parent)
        self._log.load(should)
        if self._log.place.offset != len(should):
            raise damaged(self._files.wal, should, self._log.place)
        self._kept, self._displaced = kept_files(self._files, self._log)
        self._displaced = [saved for saved in self._displaced if not self._removed_copy(saved)]
        self.look_after(opening=True)
        self._gather_from_full_files()
        self._kept = [kept for kept in self._kept if kept.is_reported or not self._removed_copy(kept.path)]

    def _removed_copy(self, saved: Path) -> bool:
        """Removes a file that a rotation left, or one that a crash kept from being put into place; True if it was one."""
        if ours := self._is_the_logs_own(read_or_nothing(saved)):
            remove_file(saved)
        return ours

    # ---- looking after the Markdown file -----------------------------------------------------------------------------

    def look_after(self, *, opening: bool = False) -> None:
        """Mends and reports what others did to the Markdown file: its size is compared each time, its bytes every LOOK_SECONDS."""
        if time.monotonic() < self._look_again and size_or_none(self._path, self._beside) == self._wal.size_bytes:
            return
        self._record_displaced()
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
                self._record_displaced()
            case None:
                pass
        self._owes = False
        self._look_again = time.monotonic() + LOOK_SECONDS

    def _settled(self, should: bytes) -> bytes:
        """What the Markdown file holds, once it no longer changes."""
        found = read_or_nothing(self._path)
        for _ in range(SETTLE_TRIES if found != should else 0):
            time.sleep(SETTLE_SECONDS)
            before, found = found, read_or_nothing(self._path)
            if found == before:
                break
        return found

    def _put_back(self, rest: bytes, *, quietly: bool) -> None:
        """Writes what is missing at the end; after a crash between the two files (`quietly`) without an entry about it."""
        if quietly:
            self._append(rest)
            return
        should = self._wal.payload()
        draft = self.draft()
        self._report(draft, should[: len(should) - len(rest)], should)
        self.write(draft, missing=rest)

    # ---- files that were in the log's place --------------------------------------------------------------------------

    def _staged(self, text: bytes) -> Path:
        """A file that will replace one of the log; until then it has the name under which the replaced one will be kept."""
        number = self._log.last_seq + 1
        while (saved := self._files.saved(number)).exists():
            number += 1
        replace_file(saved, text)  # never half of it: after a crash it can be recognised as the log's own
        return saved

    def _put_into_place(self, staged: Path, path: Path) -> None:
        """Exchanges the staged file and `path`: what was there until this moment is kept under the other name."""
        if take_place(staged, path):
            sync_file(staged)
            self._displaced.append(staged)
        sync_folder(staged.parent)
        sync_folder(path.parent)

    def _record_displaced(self) -> None:
        """Records the replaced files, now that nobody can save to them by name; what was typed in them becomes a note."""
        while self._displaced:
            saved = self._displaced[0]
            found = read_or_nothing(saved)
            is_reported = not self._is_the_logs_own(found) and self._record_kept(saved, found)
            self._kept.append(Kept(saved, len(found), sha_of(found), is_reported))
            del self._displaced[0]

    def _record_kept(self, saved: Path, found: bytes) -> bool:
        """Whether an entry says now that the file is kept."""
        draft, name = self.draft(), str(saved.relative_to(self._path.parent))
        full = next((text for text in self._full_texts() if found.startswith(text)), None)
        if full is not None:
            draft.seal(escape(found[len(full) :]), file=name, upto=len(found))
        else:
            if typed := self._typed_in(found):
                draft.seal(escape(typed))
            self._report(draft, found, self._wal.payload(), file=name)
        self.write(draft)
        return full is None

    def _is_the_logs_own(self, found: bytes) -> bool:
        """True for a full file (a rotation replaces one), for the newest file at some earlier time, and for one prepared to follow it."""
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

    # ---- late writes -------------------------------------------------------------------------------------------------

    def _gather_late(self) -> None:
        """What somebody wrote into a file after it was replaced becomes a note."""
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
        """The same for what somebody typed into a full file, which is replaced by a clean one."""
        opening = Opening.of(self._wal.payload())
        while opening:
            path = self._files.older(opening.number)
            if (found := stat_or_none(path)) and found.st_size > opening.size:
                self._put_into_place(self._staged(read_or_nothing(path, opening.size)), path)
            opening = Opening.of(read_or_nothing(path, HEAD_BYTES))
        self._record_displaced()

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(self, draft: Draft, *, standing: bytes = b"", missing: bytes = b"") -> None:
        """Writes the draft to the write-ahead file, then to the Markdown file.

        `standing`: its beginning, if that is in the Markdown file already; `missing`: what should come before it and is not there.
        Raises OSError with nothing of it left.  If only the Markdown file could not be written, `look_after` writes it later.
        """
        self._wal.append(draft.data)
        self._log.add(draft.entries, draft.place)
        if self._known is not None and draft.stated:
            self._known.keep(draft.stated)
        try:
            self._append(missing + draft.data.removeprefix(standing))
        except OSError:
            self._owes = True

    def _append(self, data: bytes) -> None:
        """One write at the end of the file that has the name now; an editor may have replaced it a moment ago."""
        fd = open_in(self._beside, self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            before = os.lseek(fd, 0, os.SEEK_END)  # fails for all that is no file
            self._append_to(fd, data, before)
        finally:
            os.close(fd)

    @staticmethod
    def _append_to(fd: int, data: bytes, before: int) -> None:
        try:
            write_all(fd, data)
        except OSError:
            if data.startswith(os.pread(fd, len(data) + 1, before)):
                os.ftruncate(fd, before)  # nothing half-written, and only what is ours
            raise

    def rotate(self) -> None:
        """Begins a new file with a head that names the full one; readers find whole files at any moment.

        After an OSError the old file is still the newest, or `look_after` completes the rotation.
        """
        self._compare()
        self._gather_from_full_files()
        should = self._wal.payload()
        number = older_count(self._files, should) + 1
        replace_file(self._files.older(number), should)  # a new file: nobody has it open
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
        self._known = Stated()
        self._put_into_place(staged, self._path)
        self._record_displaced()

    def close(self) -> None:
        """Also syncs the Markdown file: a copy of it alone is then complete."""
        self._wal.close()
        os.close(self._beside)
        with suppress(FileNotFoundError):
            sync_file(self._path)
