"""A group of entries being put together behind a place of the chain; pure, nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarm.events import Event, Head, Seal
from swarm.log.chain import Place, Raw, chained, mac_of, sha_of
from swarm.log.entry import Entry, written
from swarm.log.reader import with_sealed_text

LOG = "log"
"""The author of what the log itself records."""
UNKNOWN = "unknown"
"""The author of what a person typed, until somebody amends it."""


class Draft:
    """Entries and their bytes, numbered and chained; `time` is that of all of them."""

    def __init__(self, place: Place, time: float) -> None:
        self.place = place
        self.time = float(int(time))
        self.entries: list[Entry] = []
        self.data = b""
        self.head_seq = 0
        """The last head among them; 0 if there is none."""

    def add(self, author: str, event: Event, via: str | None = None, gap: bytes = b"") -> Entry:
        """One more entry, behind `gap` (bytes that it seals).  Raises LogError, and leaves the draft as it was."""
        seq = self.place.seq + 1
        raw = Raw(chained(self.place.chain, seq, written(seq, author, self.time, event, via)), gap)
        entry = with_sealed_text(Entry(seq, author, self.time, event, raw.chain.decode(), via), gap)
        self.place = self.place.after(raw)
        self.data += raw.on_disk
        self.entries.append(entry)
        return entry

    def add_all(
        self, items: Iterable[tuple[str, Event]], via: str | None, then: Callable[[Draft], None]
    ) -> list[Entry]:
        """All of them or, with a LogError, none; `then` may add a head after each."""
        before = self.place, self.data, self.head_seq, len(self.entries)
        added = []
        try:
            for author, event in items:
                added.append(self.add(author, event, via))
                then(self)
        except BaseException:
            self.place, self.data, self.head_seq = before[:3]
            del self.entries[before[3] :]
            raise
        return added

    def seal(self, text: bytes, *, torn: bool = False, **facts: object) -> None:
        """The seal of text that is no entry and stands right before it."""
        gap = text if text.endswith(b"\n") else text + b"\n"
        why, author = ("torn", LOG) if torn else ("note", UNKNOWN)
        fields = {"ref": "-", "off": self.place.offset, "n": len(gap), "sha": sha_of(gap), "why": why, **facts}
        told = "" if torn else f"what stands above was typed; `swarm amend {self.place.seq + 1} TEXT` adds a word to it"
        self.add(author, Seal.model_validate({**fields, "body": told}), gap=gap)

    def head(self, secret: bytes | None, file: str | None = None, body: str = "") -> None:
        """A head that vouches for the chain up to here; without a secret it only says where the chain stood."""
        mac = mac_of(secret, self.place.seq, self.place.chain) if secret else "-"
        self.head_seq = self.add(LOG, Head(ref="-", chain=self.place.chain.decode(), mac=mac, file=file, body=body)).seq
