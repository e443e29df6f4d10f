"""A log to which anything happens in any order: entries, typing, old copies, edits, cuts, deletions, new writers, rotations."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import Post
from swarm.log import Entry, Log, LogWriter, ledger, verify
from tests.swarm.log.conftest import hostile_body, some_event

STEPS = 40


class Story:
    """A writer, a person with an editor, and a reader who follows, in the run folder of `path`."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self.path, self.rng = path, rng
        self.writer = self.opened()
        self.reader = Log(path)
        self.read: list[Entry] = []
        self.acknowledged: list[Entry] = []
        self.copies: list[bytes] = [b""]
        """What the person's editor had loaded at some time."""
        self.typed: list[str] = []
        self.told: list[str] = []

    def opened(self) -> LogWriter:
        return LogWriter.open(self.path, secret=b"s", head_every=8, rotate_bytes=2500)

    @property
    def now(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def words(self) -> bytes:
        """Something that only the person wrote, with a word that is found again."""
        word = f"word-{len(self.typed)}-of-bob"
        self.typed.append(word)
        around = self.rng.choice(
            ["{}", "{}\n", "\n{}\n\n", "## {}\n", "##### {}\n", "{} ##### 3 post", self.imitation(), "{}\r\n"]
        )
        return around.replace("{}", word).encode()

    def imitation(self) -> str:
        """A true entry with the word put into its body: what somebody pastes or edits."""
        entries = re.findall(r"^##### .*?\n<!-- .*? -->\n", self.now.decode(errors="replace"), re.DOTALL | re.MULTILINE)
        return self.rng.choice(entries).replace("\n<!-- ", " {}\n<!-- ") if entries else "{}"

    # ---- what can happen ---------------------------------------------------------------------------------------------

    def append(self) -> None:
        group: list[tuple[str, Event]] = [
            ("ada", some_event(self.rng) if self.rng.random() < 0.5 else Post(ref="s1", body=hostile_body(self.rng)))
            for _ in range(self.rng.randint(1, 4))
        ]
        self.acknowledged += self.writer.append(group)

    def type_at_the_end(self) -> None:
        with self.path.open("ab") as file:
            file.write(self.words())

    def load(self) -> None:
        self.copies.append(self.now)

    def save_an_old_copy(self) -> None:
        copy = self.rng.choice(self.copies)
        at = self.rng.choice([0, len(copy), copy.find(b"\n##### ") + 1, copy.find(b"\n") + 1])
        self.save(copy[:at] + self.words() + b"\n" * (at < len(copy)) + copy[at:])

    def save_an_old_copy_as_it_was(self) -> None:
        self.save(self.rng.choice(self.copies))

    def save_with_other_line_ends(self) -> None:
        self.save(b"\xef\xbb\xbf" + self.now.replace(b"\n", b"\r\n"))

    def edit_in_place(self) -> None:
        if data := self.now:
            at = self.rng.randrange(len(data))
            with self.path.open("r+b") as file:
                file.seek(at)
                file.write(bytes([data[at] ^ 1]))

    def cut(self) -> None:
        if data := self.now:
            os.truncate(self.path, self.rng.randrange(len(data)))

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)

    def new_writer(self) -> None:
        self.writer.close()
        self.writer = self.opened()

    def save(self, data: bytes) -> None:
        if self.rng.random() < 0.5:
            new = self.path.with_suffix(".new")
            new.write_bytes(data)
            new.replace(self.path)
        else:
            self.path.write_bytes(data)

    # ---- what must hold ----------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """A reader may be behind, it is never wrong."""
        self.read += self.reader.refresh()
        assert self.read == list(self.writer.log.entries())[: len(self.read)]

    def check(self) -> None:
        self.writer.append([])
        true = list(self.writer.log.entries())
        assert [entry for entry in true if entry in self.acknowledged] == self.acknowledged
        assert Log(self.path).refresh() == true
        self.follow()
        assert self.read == true
        assert verify(self.path, secret=b"s", head_every=8) == []
        notes = "\n".join(entry.event.body for entry in true if entry.event.kind == "seal")
        assert [word for word in self.typed if word not in notes] == []


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_entries_stay_readers_agree_and_words_are_kept(
    path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, torture: bool
) -> None:
    monkeypatch.setattr(ledger, "LOOK_SECONDS", 0.0)
    for story_seed in range(seed, 30 * (40 if torture else 1), 30):
        tell(path.parent / str(story_seed) / path.name, random.Random(story_seed))


def tell(path: Path, rng: random.Random) -> None:
    story = Story(path, rng)
    people: list[Callable[[], None]] = [
        story.type_at_the_end, story.load, story.save_an_old_copy, story.save_an_old_copy_as_it_was,
        story.save_with_other_line_ends, story.edit_in_place, story.cut, story.delete,
    ]  # fmt: skip
    for _ in range(STEPS):
        happens = rng.choice([story.append] * 4 + [story.new_writer] + people)
        story.told.append(happens.__name__)
        try:
            happens()
            if happens in people:
                story.follow()
            story.check()
        except BaseException:
            print(story.told)
            raise
    story.writer.close()
