r"""The hash chain over the bytes of a log file, and the walk that reads entries along it; pure.

An entry's chain value is BLAKE2b (8 bytes, unkeyed) over the chain value before and the entry's own bytes, from its seq
in the heading up to where its chain value stands in the closing comment.  Anyone can compute it: it shows every accidental or
partial change.  A history that was rewritten from some point on is found only with the secret, by a signed head (`mac_of`).

Bytes that are no entry (torn, typed) are skipped if a `seal` entry follows that states their offset, length and hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from swarm.log.entry import Earlier, Entry, understood
from swarm.log.forms import CLOSING, COMMENT, DIARY, END, FORMS, HEAD, HEADER_LINE, Form

GENESIS = b"0" * 16
"""The chain value before the first entry."""
SEAL = re.compile(rb"^##(?:###)? (\d{1,18}) seal [^\n]*\n", re.MULTILINE)


def chained(before: bytes, text: bytes, form: Form = DIARY) -> bytes:
    """The raw entry whose bytes in a file are `text` up to its chain value."""
    unchained = text.removeprefix(form.begin)
    return unchained + form.chain_of(before, unchained)


def sha_of(data: bytes) -> str:
    """The short hash by which a seal names the bytes it covers."""
    return blake2b(data, digest_size=8).hexdigest()


def mac_of(secret: bytes, seq: int, chain: bytes) -> str:
    """The signature of a head: keyed BLAKE2b-128 over the seq and chain value that it vouches for."""
    key = blake2b(secret, digest_size=32, person=b"toonswarm head").digest()
    return blake2b(b"%d %s" % (seq, chain), key=key, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Place:
    """A point of the chain: the last entry before it, and the offset in its file where the next one begins."""

    seq: int = 0
    chain: bytes = GENESIS
    offset: int = 0

    def after(self, raw: Raw) -> Place:
        return Place(self.seq + 1, raw.chain, self.offset + len(raw.on_disk))


class Raw(NamedTuple):
    """An entry as it was read, checked against the chain but not parsed yet."""

    piece: bytes
    """From its seq up to and with its chain value."""
    gap: bytes = b""
    """The bytes before it: for a seal those that it covers, for the first entry of a file the file's head."""
    form: Form = DIARY

    @property
    def chain(self) -> bytes:
        return self.piece[-self.form.chain_size :]

    @property
    def kind(self) -> bytes:
        return self.piece.split(b" ", 2)[1]

    @property
    def whole(self) -> bytes:
        return self.form.begin + self.piece + END

    @property
    def on_disk(self) -> bytes:
        return self.gap + self.whole

    @property
    def states_day(self) -> bool:
        """Whether its heading states day and time; else those of the entry before are needed."""
        heading = self.form.header.match(self.form.begin + self.piece)
        return heading is not None and heading["day"] is not None

    def entry(self, earlier: Earlier) -> Entry:
        """The entry as a value.  Raises LogError."""
        return understood(self.form.begin + self.piece, self.form, earlier)


@dataclass(slots=True)
class Walk:
    """The entries read from a buffer and the place reached; bytes behind the place are no entry (yet)."""

    place: Place
    entries: list[Raw] = field(default_factory=list)

    def take(self, raw: Raw) -> None:
        self.entries.append(raw)
        self.place = self.place.after(raw)


def walk(data: bytes, start: Place) -> Walk:
    """Reads entries from `data`, the bytes of a file from `start.offset` on, as far as chain and seals are intact."""
    reached = Walk(start)
    while True:
        for form in FORMS:
            run_of_entries(data, start.offset, reached, form)
        at = reached.place.offset - start.offset
        raw = entry_at(data, at, reached.place) or sealed_at(data, at, reached.place)
        if raw is None:
            return reached
        reached.take(raw)


def run_of_entries(data: bytes, base: int, reached: Walk, form: Form) -> None:
    """The fast way for consecutive entries of one form: one split, then a hash and a comparison for each."""
    place = reached.place
    at = place.offset - base
    if not data.startswith(form.begin, at):
        return
    pieces = data[at + len(form.begin) :].split(form.between)
    pieces[-1] = pieces[-1].removesuffix(END) if pieces[-1].endswith(END) else b""
    chain, sound, size = place.chain, 0, form.chain_size
    chain_of = form.chain_of
    for piece in pieces:
        own = piece[-size:]
        if chain_of(chain, piece[:-size]) != own:
            break
        chain = own
        sound += 1
    seq = place.seq + sound
    if not sound or not pieces[sound - 1].startswith(b"%d " % seq):
        return
    length = sum(map(len, pieces[:sound])) + sound * len(form.between)
    reached.entries += [Raw(piece, b"", form) for piece in pieces[:sound]]
    reached.place = Place(seq, chain, place.offset + length)


def sealed_at(data: bytes, at: int, place: Place) -> Raw | None:
    """The seal that covers exactly the bytes from `at` up to itself."""
    for header in SEAL.finditer(data, at + 1):
        if int(header[1]) == place.seq + 1 and (raw := entry_at(data, header.start(), place)):
            gap = data[at : header.start()]
            states = b" off=%d n=%d sha=%s why=" % (place.offset, len(gap), sha_of(gap).encode())
            facts = header[0] if raw.form is not DIARY else raw.piece[raw.piece.rindex(COMMENT) :]
            if states in facts:
                return raw._replace(gap=gap)
    return None


def entry_at(data: bytes, at: int, place: Place) -> Raw | None:
    """The entry that begins at `at`, behind the head of the file if there is one, if it is whole and chained on `place`."""
    gap = head_at(data, at) if place.offset == 0 else b""
    at += len(gap)
    for form in FORMS:
        header = form.header.match(data, at)
        if header and int(header["seq"]) == place.seq + 1 and (end := form.end(data, header)) >= 0:
            piece = chained(place.chain, data[at:end], form)
            return Raw(piece, gap, form) if data.startswith(piece + END, at + len(form.begin)) else None
    return None


def head_at(data: bytes, at: int) -> bytes:
    return HEAD if data.startswith(HEAD, at) else b""


def holds_entries(tail: bytes, place: Place) -> bool:
    """True if `tail`, where the walk ended, seems to hold whole later entries: one of them was changed."""
    return any(int(header[1]) > place.seq and closed(tail, header) for header in HEADER_LINE.finditer(tail))


def closed(tail: bytes, header: re.Match[bytes]) -> bool:
    """Whether the entry that seems to begin with `header` also ends like one."""
    following = HEADER_LINE.search(tail, header.end())
    return CLOSING.search(tail, header.end(), following.start() if following else len(tail)) is not None
