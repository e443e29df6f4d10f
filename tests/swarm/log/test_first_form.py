"""A log that an earlier version began: it is read, verified, mended and goes on in today's form, on the same chain.

`first_form/` was written by the version of November 2026: two full files and a third, signed heads, a note that was typed, an old
copy that was saved over the log, bodies that imitate entries; `entries.json` says what its entries are.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import KINDS, Checkpoint, Claim, Post, Seal
from swarm.log import Entry, Log, LogDamaged, LogWriter, verify

Sound = Callable[[Path], list[Entry]]
OLD = Path(__file__).parent / "first_form"
SECRET = b"the run's own"
SHA = "5d" * 32


def entries_then() -> list[Entry]:
    """What stands in the old log, as the version that wrote it read it."""
    rows = json.loads((OLD / "entries.json").read_text(encoding="utf-8"))
    return [
        Entry(seq, author, time, KINDS[kind](ref=ref, body=body, **facts), chain, via)
        for seq, author, time, kind, ref, body, facts, chain, via in rows
    ]


@pytest.fixture
def old(path: Path) -> Path:
    shutil.copytree(OLD, path.parent, dirs_exist_ok=True)
    return path


def note(text: str) -> tuple[str, Event]:
    return ("ada", Post(ref="s1", body=text))


def test_every_entry_reads_as_it_was_written_and_every_byte_verifies(old: Path) -> None:
    assert Log(old).refresh() == entries_then()
    assert verify(old, secret=SECRET, head_every=8) == []


def test_without_its_write_ahead_file_it_is_read_by_its_chain(old: Path) -> None:
    (old.parent / "collaboration/wal").unlink()
    assert Log(old).refresh() == entries_then()


def test_it_goes_on_in_the_same_file_and_chain_in_todays_form(old: Path) -> None:
    then, before = entries_then(), old.read_bytes()
    following = Log(old)
    assert following.refresh() == then
    with LogWriter.open(old, secret=SECRET, head_every=8) as writer:
        added = [entry for n in range(20) for entry in writer.append([note(f"note {n}")])]
        assert [entry.event.body for entry in following.refresh() if entry in added] == [f"note {n}" for n in range(20)]
    assert Log(old).refresh() == list(writer.log.entries())
    assert Log(old).refresh()[: len(then)] == then
    assert verify(old, secret=SECRET, head_every=8) == []
    whole = old.read_bytes()
    assert whole.startswith(before) and whole[len(before) :].startswith(b"##### 61 post s1 ada 20")


def test_it_is_put_aside_when_it_is_full_and_the_next_file_has_todays_form_only(old: Path) -> None:
    then = entries_then()
    with LogWriter.open(old, secret=SECRET, head_every=8, rotate_bytes=3500) as writer:
        for n in range(60):
            writer.append([note(f"note {n}")])
    assert (old.parent / "collaboration/0003.md").read_bytes().startswith(b"## ")
    assert old.read_text(encoding="utf-8").startswith("# What happened") and "\n## " not in old.read_text(
        encoding="utf-8"
    )
    assert Log(old).refresh()[: len(then)] == then
    assert verify(old, secret=SECRET, head_every=8) == []


def test_an_entry_of_today_may_refer_to_one_of_then(old: Path, sound: Sound) -> None:
    seq, fact = next(
        (entry.seq, entry.event.sha256)
        for entry in entries_then()
        if isinstance(entry.event, Checkpoint) and f"sha256={entry.event.sha256}" in old.read_text(encoding="utf-8")
    )
    with LogWriter.open(old, secret=SECRET, head_every=8) as writer:
        writer.append([("bob", Checkpoint(ref="s1/train", tok=5, step=77, path="streams/s1/t5", sha256=fact))])
    assert f"sha256=~{seq} " in old.read_text(encoding="utf-8")
    last = Log(old).refresh()[-1].event
    assert isinstance(last, Checkpoint) and last.sha256 == fact


def test_what_somebody_saves_over_it_is_kept_and_its_entries_stand_again(old: Path) -> None:
    then, before = entries_then(), old.read_bytes()
    with LogWriter.open(old, secret=SECRET, head_every=8) as writer:
        writer.append([note("one")])
        old.write_bytes(before.replace(b"@ada", b"@eve") + b"typed by Bob\n")
        writer.append([note("two")])
    found = Log(old).refresh()
    assert found[: len(then)] == then and verify(old, secret=SECRET, head_every=8) == []
    typed = [
        entry.event.body for entry in found[len(then) :] if isinstance(entry.event, Seal) and entry.event.why == "note"
    ]
    assert len(typed) == 1 and typed[0].endswith("typed by Bob")


def test_cut_anywhere_all_of_it_comes_back(old: Path) -> None:
    whole, then = old.read_bytes(), entries_then()
    for cut in range(0, len(whole), 7):
        old.write_bytes(whole[:cut])
        assert Log(old).refresh() == then
        with LogWriter.open(old, secret=SECRET, head_every=8):
            pass
        assert old.read_bytes().startswith(whole) and Log(old).refresh()[: len(then)] == then
        shutil.copytree(OLD, old.parent, dirs_exist_ok=True)


def test_every_flipped_bit_is_found(old: Path) -> None:
    rng = random.Random(4)
    with LogWriter.open(old, secret=SECRET, head_every=8) as writer:
        writer.append([note("one"), ("bob", Claim(ref="s1/train", ttl=60)), note("two")])
    files = [old, *sorted((old.parent / "collaboration").glob("0*.md"))]
    for _ in range(400):
        file = rng.choice(files)
        whole = file.read_bytes()
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        assert [f for f in verify(old, secret=SECRET, head_every=8) if old.parent / f.file == file]
        file.write_bytes(whole)


def test_damage_in_a_full_file_of_it_is_named_with_its_line(old: Path) -> None:
    first = old.parent / "collaboration/0001.md"
    first.write_bytes(first.read_bytes().replace(b"## 5 ", b"## 6 ", 1))
    with pytest.raises(LogDamaged, match=r"0001\.md:\d+: entry 5 is changed"):
        Log(old).refresh()
