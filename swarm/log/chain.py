r"""The hash chain over the bytes of a log file, and the walk that reads entries along it; pure.

An entry's chain value is BLAKE2b (8 bytes, unkeyed) over the chain value before and the entry's own bytes, from its seq
in the header up to where its chain value stands in the trailer.  Anyone can compute it: it shows every accidental or
partial change.  A history that was rewritten from some point on shows only against a signed head (`mac_of`), to who
holds the secret.

Bytes that are no entry (torn, typed) are skipped where a `seal` entry follows that states their offset, length and hash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from swarm.log.entry import CUT, HEADER, Entry, understood

GENESIS = b"0" * 16
"""The chain value before the first entry."""
BEGIN, END = b"## ", b" -->\n"
"""What stands around a raw entry in a file."""
BETWEEN = END + BEGIN
"""No body can hold it (`escaping.escape`), so one split of a file gives its raw entries."""
TRAILER = re.compile(rb"^<!-- /(\d{1,18}) [0-9a-f]{16} -->$", re.MULTILINE)
HEADER_LINE = re.compile(rb"^## ([1-9]\d{0,17}) ", re.MULTILINE)
SEAL = re.compile(rb"^## (\d{1,18}) seal [^\n]*\n", re.MULTILINE)


def chain_of(before: bytes, unchained: bytes) -> bytes:
    """The chain value (16 hex digits) of an entry whose bytes up to that value are `unchained`."""
    return blake2b(before + unchained, digest_size=8).hexdigest().encode()


def chained(before: bytes, seq: int, text: bytes) -> bytes:
    """The raw entry of a header and body."""
    unchained = text.removeprefix(BEGIN) + CUT + b"%d " % seq
    return unchained + chain_of(before, unchained)


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
    """An entry as it was read, checked against the chain but not yet understood."""

    piece: bytes
    """`<seq> <kind> ... <body>\\n<!-- /<seq> <chain>`"""
    gap: bytes = b""
    """For a seal: the bytes before it that it covers."""

    @property
    def chain(self) -> bytes:
        return self.piece[-16:]

    @property
    def kind(self) -> bytes:
        return self.piece.split(b" ", 2)[1]

    @property
    def whole(self) -> bytes:
        return BEGIN + self.piece + END

    @property
    def on_disk(self) -> bytes:
        return self.gap + self.whole

    def entry(self) -> Entry:
        """What it says.  Raises LogError."""
        return understood(BEGIN + self.piece[: self.piece.rindex(CUT)], self.chain.decode())


@dataclass(slots=True)
class Walk:
    """The entries read from a buffer and the place reached; bytes behind the place are no entry (yet)."""

    place: Place
    entries: list[Raw] = field(default_factory=list)

    def take(self, raw: Raw) -> None:
        self.entries.append(raw)
        self.place = self.place.after(raw)


def walk(data: bytes, start: Place) -> Walk:
    """Reads entries from `data`, the bytes of a file from `start.offset` on, as far as chain and seals carry."""
    reached = Walk(start)
    while True:
        run_of_entries(data, start.offset, reached)
        at = reached.place.offset - start.offset
        raw = entry_at(data, at, reached.place) or sealed_at(data, at, reached.place)
        if raw is None:
            return reached
        reached.take(raw)


def run_of_entries(data: bytes, base: int, reached: Walk) -> None:
    """The fast way for entries that follow each other: one split, and a hash and a comparison for each."""
    place = reached.place
    at = place.offset - base
    if not data.startswith(BEGIN, at):
        return
    pieces = data[at + len(BEGIN) :].split(BETWEEN)
    pieces[-1] = pieces[-1].removesuffix(END) if pieces[-1].endswith(END) else b""
    chain, sound = place.chain, 0
    for piece in pieces:
        own = piece[-16:]
        if blake2b(chain + piece[:-16], digest_size=8).hexdigest().encode() != own:
            break
        chain = own
        sound += 1
    seq = place.seq + sound
    if not sound or not pieces[sound - 1].startswith(b"%d " % seq):
        return
    size = sum(map(len, pieces[:sound])) + sound * len(BETWEEN)
    reached.entries += map(Raw, pieces[:sound])
    reached.place = Place(seq, chain, place.offset + size)


def sealed_at(data: bytes, at: int, place: Place) -> Raw | None:
    """The seal that covers exactly the bytes from `at` up to itself."""
    for header in SEAL.finditer(data, at + 1):
        if int(header[1]) == place.seq + 1 and (raw := entry_at(data, header.start(), place)):
            gap = data[at : header.start()]
            if b" off=%d n=%d sha=%s why=" % (place.offset, len(gap), sha_of(gap).encode()) in header[0]:
                return Raw(raw.piece, gap)
    return None


def entry_at(data: bytes, at: int, place: Place) -> Raw | None:
    """The entry that begins at `at` if it is whole and chained on `place`."""
    header = HEADER.match(data, at)
    if header is None or int(header["seq"]) != place.seq + 1:
        return None
    end = header.end() + int(header["len"])
    piece = chained(place.chain, place.seq + 1, data[at:end])
    return Raw(piece) if data.startswith(BEGIN + piece + END, at) else None


def holds_entries(tail: bytes, place: Place) -> bool:
    """True if later entries seem to stand whole in `tail`, where the walk ended: something in them was changed."""
    begun, ended = HEADER_LINE.findall(tail), TRAILER.findall(tail)
    return any(int(seq) > place.seq for seq in {*begun} & {*ended})
