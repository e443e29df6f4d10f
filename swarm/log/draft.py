"""A group of entries that are prepared to follow a place of the chain; pure, nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from swarm.event import Event
from swarm.events import Head, Seal
from swarm.log.chain import Place, Raw, chained, mac_of, sha_of
from swarm.log.entry import Entry, day_of, implied_facts, texts_of, time_text, written
from swarm.log.forms import HEAD
from swarm.log.reader import with_sealed_text
from swarm.log.same import LEAST_TEXT, Stated, text_of

LOG = "log"
"""The author of what the log itself records."""
UNKNOWN = "unknown"
"""The author of what a person typed, until somebody amends it."""

STATE_DAY_EVERY = 64
"""Entries; who reads the last ones of a file then need not look far back for day and time."""


class Draft:
    """Entries and their bytes, numbered and chained; `time` is that of all of them."""

    def __init__(
        self, place: Place, time: float, *, before: float | None = None, stated: Callable[[], Stated] = Stated
    ) -> None:
        """`before`: the time of the last entry of the same file; `stated` gives what that file states so far."""
        self.place = place
        self.time = float(int(time))
        self.entries: list[Entry] = []
        self.data = b""
        self.head_seq = 0
        """The last head among them; 0 if there is none."""
        self._when = _stated(int(time), before)
        """What the next heading states of the time."""
        self._stated_so_far = stated
        self.stated: Stated | None = None
        """What these entries state; None if nothing of it is worth a reference."""

    def add(self, author: str, event: Event, via: str | None = None, gap: bytes = b"") -> Entry:
        """One more entry, behind `gap` (bytes that it seals).  Raises LogError, and leaves the draft as it was."""
        seq, place = self.place.seq + 1, self.place
        when = self._when if seq % STATE_DAY_EVERY else time_text(int(self.time))
        text = written(seq, author, when, event, self._facts(seq, event), via)
        raw = Raw(chained(place.chain, text), gap or (HEAD if place.offset == 0 else b""))
        chain, on_disk = raw.chain, raw.on_disk
        entry = with_sealed_text(Entry(seq, author, self.time, event, chain.decode(), via, on_disk[len(gap) :]), raw)
        self.place = Place(seq, chain, place.offset + len(on_disk))
        self.data += on_disk
        self.entries.append(entry)
        self._when = ""
        return entry

    def _facts(self, seq: int, event: Event) -> str:
        """The log's own entries are written whole: they are looked for in the bytes."""
        facts = texts_of(event)
        if isinstance(event, Seal | Head):
            return text_of(facts)
        implied = implied_facts(type(event), event.stream, facts)
        if not implied and len(text := text_of(facts)) < LEAST_TEXT:
            return text
        self.stated = self.stated or Stated(known=self._stated_so_far())
        return self.stated.add(seq, event.kind, facts, implied)

    def add_all(
        self, items: Iterable[tuple[str, Event]], via: str | None, then: Callable[[Draft], None]
    ) -> list[Entry]:
        """Adds all of them or, with a LogError, none; `then` is called after each and may add a head."""
        before = self.place, self.data, self.head_seq, self._when, self.stated and self.stated.copy()
        count = len(self.entries)
        added = []
        try:
            for author, event in items:
                added.append(self.add(author, event, via))
                then(self)
        except BaseException:
            self.place, self.data, self.head_seq, self._when, self.stated = before
            del self.entries[count:]
            raise
        return added

    def seal(self, text: bytes, *, torn: bool = False, **facts: object) -> None:
        """The seal of text that is no entry and stands right before it."""
        gap = text if text.endswith(b"\n") else text + b"\n"
        why, author = ("torn", LOG) if torn else ("note", UNKNOWN)
        fields = {"ref": "-", "off": self.place.offset, "n": len(gap), "sha": sha_of(gap), "why": why, **facts}
        body = "" if torn else f"The text above was typed by hand; `swarm amend {self.place.seq + 1} TEXT` adds to it."
        self.add(author, Seal.model_validate({**fields, "body": body}), gap=gap)

    def head(self, secret: bytes | None, file: str | None = None, body: str = "") -> None:
        """A head that vouches for the chain up to here; without a secret it only says where the chain stood."""
        mac = mac_of(secret, self.place.seq, self.place.chain) if secret else "-"
        self.head_seq = self.add(LOG, Head(ref="-", chain=self.place.chain.decode(), mac=mac, file=file, body=body)).seq


def _stated(time: int, before: float | None) -> str:
    """Nothing in the second of the entry before, the time alone on its day."""
    if before is None:
        return time_text(time)
    if int(before) == time:
        return ""
    return time_text(time)[11:] if day_of(before) == day_of(time) else time_text(time)
