"""COLLABORATION.md and its write-ahead file, kept equal: recovery, mending, appending and rotation.

The write-ahead file says how the newest log file should be, byte for byte.  Whatever else stands in the Markdown file is
somebody's: it is never thrown away.  Every step is ordered so that a crash after it leaves something that `recover` puts
right; who may call this, and when, is `writer.py`'s business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from swarm.events import Seal
from swarm.log.chain import Place, holds_entries, sha_of
from swarm.log.draft import LOG, Draft
from swarm.log.entry import escape
from swarm.log.errors import LogDamaged
from swarm.log.files import (
    Files,
    keep_as,
    read_or_nothing,
    rename_over,
    replace_file,
    size_or_none,
    sync_file,
    sync_folder,
    write_all,
    write_new,
)
from swarm.log.mend import Lacks, Replaced, Typed, compare, first_difference, missing_in, spans, typed_in, whole_texts
from swarm.log.older import Opening, damaged, older_count, scan, statement
from swarm.log.reader import WritersLog
from swarm.log.wal import Wal, image

SETTLE_SECONDS = 0.02
"""A file that somebody is just saving is read again after this time, until it rests."""
SETTLE_TRIES = 50
LOOK_SECONDS = 1.0
"""How long an edit in place may stand that leaves the file's size as it was; any other is met before the next entry."""
HEAD_BYTES = 4096
"""Enough of a file for the head that opens it."""


class Ledger:
    """The files of a log, open for writing; `log` is told all that is written."""

    def __init__(self, files: Files, log: WritersLog, secret: bytes | None, now: Callable[[], float]) -> None:
        self._files, self._log, self._secret, self._now = files, log, secret, now
        self._path = files.path
        self._look_again = 0.0
        """When all bytes are compared again, by the monotonic clock."""
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
        if self._wal.torn or not self._wal.size_bytes:
            self._rebuild_wal(read_or_nothing(self._path))
        if not self._wal.size_bytes:  # whoever made these names may have died before they were on the disk
            sync_folder(self._files.folder)
            sync_folder(self._path.parent)
        self._log.load(self._wal.payload())
        if self._log.place.offset != self._wal.size_bytes:
            raise damaged(self._files.wal, self._wal.payload(), self._log.place)
        self.look_after(opening=True)
        self._gather_late()

    def _gather_late(self) -> None:
        """What somebody wrote into a full file, who had it open since before its rotation, becomes a note in the newest."""
        opening = Opening.of(self._wal.payload())
        while opening:
            path = self._files.older(opening.number)
            if 0 < opening.size < path.stat().st_size:
                late = path.read_bytes()[opening.size :]
                draft = self.draft()
                draft.seal(escape(late if late.endswith(b"\n") else late + b"\n"))
                self.write(draft)
                os.truncate(path, opening.size)  # in place: whoever has it open goes on there
                sync_file(path)
            with path.open("rb") as file:
                opening = Opening.of(file.read(HEAD_BYTES))

    def _rebuild_wal(self, found: bytes) -> None:
        """Where the write-ahead file is new, lost or damaged, whole entries in the Markdown file are taken from there."""
        should = self._wal.payload()
        if found.endswith(b" -->"):
            found += b"\n"  # an editor or a crash took the last newline only
        reached = scan(self._files, found if found.startswith(should) else should)
        beyond = found[reached.place.offset :] if found.startswith(should) else found
        if holds_entries(beyond, reached.place):
            raise damaged(self._path, found, reached.place)
        if not should and not reached.entries and self._files.older(1).exists():
            raise LogDamaged(self._path, f"the newest entries and {self._files.wal} are gone, older files are there")
        if reached.place.offset > len(should):
            self._wal.close()
            replace_file(self._files.wal, image(found[: reached.place.offset]))
            self._wal = Wal(self._files.wal)

    # ---- looking after the Markdown file -----------------------------------------------------------------------------

    def look_after(self, *, opening: bool = False) -> None:
        """Mends and reports what others did to the Markdown file: its size is asked each time, its bytes now and then."""
        if time.monotonic() < self._look_again and size_or_none(self._path) == self._wal.size_bytes:
            return
        self._compare(opening=opening)

    def _compare(self, *, opening: bool = False) -> None:
        should = self._wal.payload()
        match compare(self._settled(should), should, self._log.last_seq + 1):
            case Lacks(rest):
                self._put_back(rest, quietly=opening and len(should) - len(rest) >= self._wal.last_at)
            case Typed(tail, torn):
                self._seal(tail, torn=torn)
            case Replaced(found):
                self._write_again(found, should)
            case None:
                pass
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
        self._append(rest)
        if quietly:
            return
        should = self._wal.payload()
        found = should[: len(should) - len(rest)]
        draft = self.draft()
        self._report(draft, found, should, kept="")
        self.write(draft)

    def _seal(self, tail: bytes, *, torn: bool) -> None:
        draft = self.draft()
        draft.seal(tail if tail.endswith(b"\n") else tail + b"\n", torn=torn)
        self.write(draft, standing=tail)

    def _write_again(self, found: bytes, should: bytes) -> None:
        """Puts the file back as it should be; the one that stood there is kept beside it, and what was typed in it."""
        if found == self._previous_file():
            sync_folder(self._files.folder)  # a rotation was cut short: finish it
            replace_file(self._path, should)
            return
        entries = scan(self._files, should).entries
        typed = typed_in(found, whole_texts(entries), [raw.gap for raw in entries if raw.gap])
        draft = self.draft()
        if typed:
            draft.seal(escape(typed if typed.endswith(b"\n") else typed + b"\n"))
        saved = self._files.saved(draft.place.seq + 1)
        self._report(draft, found, should, kept=f"; the file that stood there is kept as collaboration/{saved.name}")
        keep_as(self._path, saved)
        new = write_new(self._path, should + draft.data)
        try:
            self._wal.append(draft.data)
        except OSError:
            new.unlink()
            raise
        try:
            new.replace(self._path)
        except OSError:
            self._wal.retract()
            raise
        self._log.add(draft.entries, draft.place)
        sync_folder(self._path.parent)

    def _previous_file(self) -> bytes | None:
        number = older_count(self._files, self._wal.payload())
        return self._files.older(number).read_bytes() if number else None

    def _report(self, draft: Draft, found: bytes, should: bytes, kept: str) -> None:
        missing = missing_in(found, self._newest(should))
        what = (
            f"entries {spans(missing)} were not in the file as written and stand again"
            if missing
            else "nothing was missing"
        )
        fields = {"off": first_difference(found, should), "n": len(found), "sha": sha_of(found), "why": "old-copy"}
        draft.add(LOG, Seal.model_validate({"ref": "-", "body": what + kept, **fields}))

    def _newest(self, should: bytes) -> dict[int, bytes]:
        """The entries of the newest file as they stand in it."""
        return {seq: text for seq, text in whole_texts(scan(self._files, should).entries).items() if text in should}

    # ---- writing -----------------------------------------------------------------------------------------------------

    def write(self, draft: Draft, standing: bytes = b"") -> None:
        """Makes the draft durable, then shows it; `standing` is its beginning where that stands in the file already.

        Raises OSError with nothing of it left anywhere.
        """
        self._wal.append(draft.data)
        try:
            self._append(draft.data.removeprefix(standing))
        except OSError:
            self._wal.retract()
            raise
        self._log.add(draft.entries, draft.place)

    def _append(self, data: bytes) -> None:
        """One write at the end of the file that bears the name now; an editor may have replaced it a moment ago."""
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o664)
        try:
            before = os.lseek(fd, 0, os.SEEK_END)
            try:
                write_all(fd, data)
            except OSError:
                if data.startswith(os.pread(fd, len(data) + 1, before)):
                    os.ftruncate(fd, before)  # only what is ours
                raise
        finally:
            os.close(fd)

    def rotate(self) -> None:
        """Begins a new file with a head that names the full one; readers see whole files at any moment.

        After an OSError the old file is still the newest, or `look_after` finishes what was begun.
        """
        self._compare()  # the full file is never written again
        self._gather_late()
        should = self._wal.payload()
        number = older_count(self._files, should) + 1
        sync_file(self._path)
        keep_as(self._path, self._files.older(number))
        last = self._log.place
        draft = Draft(Place(last.seq, last.chain, 0), self._now())
        name = self._files.older_name(number)
        draft.head(self._secret, name, statement(name, should))
        new = write_new(self._path, draft.data)
        write_new(self._files.wal, image(draft.data)).replace(self._files.wal)
        # from here on the new file is the newest, also after a crash
        self._look_again = 0.0
        self._wal.close()
        self._wal = Wal(self._files.wal)
        self._log.add(draft.entries, draft.place)
        sync_folder(self._files.folder)
        rename_over(new, self._path)

    def close(self) -> None:
        """Syncs the Markdown file too: who copies the run without its folder has all of it."""
        if self._path.exists():
            sync_file(self._path)
        self._wal.close()
