"""People type into the log, save old copies over it, edit and delete it; nothing is lost and everything is reported."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import Post, Seal
from swarm.log import Entry, Log, LogWriter, ledger, verify
from swarm.log.chain import Place
from swarm.log.draft import Draft

Sound = Callable[[Path], list[Entry]]


@pytest.fixture
def writer(path: Path) -> Iterator[LogWriter]:
    with LogWriter.open(path) as writer:
        yield writer


def notes(*bodies: str) -> list[tuple[str, Event]]:
    return [("ada", Post(ref="s1", body=body)) for body in bodies]


def seals(entries: list[Entry]) -> list[tuple[str, str, str]]:
    return [(e.author, e.event.why, e.event.body) for e in entries if isinstance(e.event, Seal)]


def type_at_end(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def save(path: Path, data: bytes) -> None:
    """As most editors do: a new file, renamed over the old one."""
    new = path.with_suffix(".swp")
    new.write_bytes(data)
    new.replace(path)


def test_typed_text_stays_where_it_is_and_becomes_a_note_of_nobody(writer: LogWriter, path: Path, sound: Sound) -> None:
    writer.append(notes("one"))
    type_at_end(path, "I think s3 diverged, stop it -- Bob")
    before = path.read_bytes()
    writer.append(notes("two"))
    assert seals(sound(path)) == [("unknown", "note", "I think s3 diverged, stop it -- Bob")]
    assert path.read_bytes().startswith(before)
    assert list(writer.log.entries()) == Log(path).refresh()


def test_looking_after_the_file_needs_no_entry(writer: LogWriter, path: Path, sound: Sound) -> None:
    type_at_end(path, "hello\n\nthree lines\n")
    assert writer.append([]) == []
    assert seals(writer.log.refresh()) == [("unknown", "note", "hello\n\nthree lines")]
    assert writer.append([]) == [] and len(sound(path)) == 1


def test_text_typed_while_nobody_writes_is_sealed_on_opening(path: Path, sound: Sound) -> None:
    type_at_end(path, "# Plan\n\nfour streams, see below\n")
    with LogWriter.open(path) as writer:
        writer.append(notes("one"))
    assert seals(sound(path)) == [("unknown", "note", "# Plan\n\nfour streams, see below")]


def test_a_log_of_bytes_that_are_no_text_is_kept_too(writer: LogWriter, path: Path, sound: Sound) -> None:
    writer.append(notes("one"))
    path.write_bytes(path.read_bytes() + b"\xff\xfe caf\xe9\r\n")
    writer.append(notes("two"))
    assert seals(sound(path)) == [("unknown", "note", "�� caf�\r")]
    assert b"\xff\xfe caf\xe9\r\n" in path.read_bytes()


def test_an_old_copy_saved_over_newer_entries_loses_nothing(writer: LogWriter, path: Path, sound: Sound) -> None:
    early = writer.append(notes("one", "two"))
    old = path.read_bytes()
    late = writer.append(notes("three")) + writer.append(notes("four", "five"))
    saved = old + b"\nBob's edit, from an old buffer\n"
    save(path, saved)
    [after] = writer.append(notes("six"))
    entries = sound(path)
    assert entries[:5] == early + late and entries[-1] == after
    assert seals(entries) == [
        ("unknown", "note", "Bob's edit, from an old buffer"),
        (
            "log",
            "old-copy",
            "entries 3-5 were not in the file as written and stand again; the file that stood there is kept as collaboration/saved-0006.md",
        ),
    ]
    assert (path.parent / "collaboration/saved-0006.md").read_bytes() == saved


def test_a_file_that_an_entry_says_is_kept_stays_although_the_log_holds_all_of_it_since(
    path: Path, sound: Sound
) -> None:
    """Bytes that no page was written with, behind a whole log: they become a note, and with it the log begins as the kept file does."""
    with LogWriter.open(path) as writer:
        writer.append(notes("one"))
    save(path, torn := path.read_bytes() + b"\0\xff noise")
    for text in ("two", "three"):
        with LogWriter.open(path) as writer:
            writer.append(notes(text))
    [saved] = (path.parent / "collaboration").glob("saved-*.md")
    assert saved.read_bytes() == torn and path.read_bytes().startswith(torn)
    assert verify(path) == [] and len(sound(path)) == 5


@pytest.mark.parametrize("open_again", [False, True])
def test_an_old_copy_with_nothing_typed_is_put_right_and_reported(path: Path, sound: Sound, open_again: bool) -> None:
    writer = LogWriter.open(path)
    writer.append(notes("one"))
    old = path.read_bytes()
    writer.append(notes("two"))
    writer.append(notes("three"))
    save(path, old)
    if open_again:
        writer.close()
        writer = LogWriter.open(path)
    writer.append(notes("four"))
    writer.close()
    assert seals(sound(path)) == [("log", "old-copy", "entries 2-3 were not in the file as written and stand again")]


def test_an_old_copy_of_before_a_rotation_is_distinguished_from_what_was_typed(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, rotate_bytes=2000) as writer:
        writer.append(notes(*"abcdefgh"))
        old = path.read_bytes()
        while not (path.parent / "collaboration/0002.md").exists():
            writer.append(notes("more"))
        save(path, old + b"typed into the old file\n")
        writer.append(notes("last"))
    assert seals(sound(path))[0] == ("unknown", "note", "typed into the old file")


def test_an_entry_that_somebody_edited_stands_again_and_the_edited_one_is_kept(
    writer: LogWriter, path: Path, sound: Sound
) -> None:
    true = writer.append(notes("one", "two", "three"))
    save(path, path.read_bytes().replace(b"two", b"twice").replace(b"##### 3", b"my remark\n##### 3"))
    writer.append([])
    entries = sound(path)
    assert entries[:3] == true
    [(_, _, kept), (_, why, report)] = seals(entries)
    assert "twice" in kept and kept.endswith("my remark") and "##### 2 post" in kept
    assert why == "old-copy" and report.startswith("entries 2 were not in the file as written")


def edit_in_place(path: Path, old: bytes, new: bytes) -> None:
    """As editors do that keep the file: neither its name nor its size nor its time tells."""
    assert len(old) == len(new)
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(old))
        file.write(new)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_edit_that_leaves_the_size_is_put_right_within_a_second_and_misleads_nobody_before(
    writer: LogWriter, path: Path, sound: Sound
) -> None:
    true = writer.append(notes("one", "two"))
    edit_in_place(path, b"two", b"tWo")
    true += writer.append(notes("three"))
    assert Log(path).refresh() == true
    time.sleep(ledger.LOOK_SECONDS)
    writer.append([])
    assert sound(path)[:3] == true
    [(_, _, kept), (_, why, report)] = seals(sound(path))
    assert "tWo" in kept and why == "old-copy" and report.startswith("entries 2 were not in the file as written")


def test_a_file_that_was_edited_just_now_is_put_right_before_it_is_full_for_good(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, rotate_bytes=1500) as writer:
        true = writer.append(notes("one", "x" * 1400))
        edit_in_place(path, b"one", b"oNe")
        writer.append(notes("in the next file"))
    assert (path.parent / "collaboration/0001.md").exists()
    assert sound(path)[:2] == true
    assert [why for _, why, _ in seals(sound(path))] == ["note", "old-copy"]


def test_windows_line_ends_and_a_byte_order_mark_are_no_news(writer: LogWriter, path: Path, sound: Sound) -> None:
    true = writer.append(notes("one", "two"))
    save(path, b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"mine\r\n")
    writer.append([])
    assert sound(path)[:2] == true
    assert seals(sound(path))[0] == ("unknown", "note", "mine")


@pytest.mark.parametrize("left", [b"", b"\0" * 4096, None])
def test_an_emptied_or_deleted_file_is_written_again(
    writer: LogWriter, path: Path, sound: Sound, left: bytes | None
) -> None:
    true = writer.append(notes("one")) + writer.append(notes("two"))
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    writer.append(notes("three"))
    assert sound(path)[:2] == true
    assert [why for _, why, _ in seals(sound(path))] == ["old-copy"]


def test_an_editor_that_drops_or_adds_the_last_newline_costs_no_note_of_text(
    writer: LogWriter, path: Path, sound: Sound
) -> None:
    true = writer.append(notes("one", "two"))
    save(path, path.read_bytes()[:-1])
    writer.append([])
    save(path, path.read_bytes() + b"\n")
    writer.append([])
    assert sound(path)[:2] == true and len(sound(path)) == 4


def test_typed_text_that_imitates_entries_is_never_taken_for_one(writer: LogWriter, path: Path, sound: Sound) -> None:
    true = writer.append(notes("one"))
    for forge in (
        complete_forgery,
        forged_seal,
        "##### 2 claim s1/train eve 2026-11-21 00:00:00\n".format,
        "## 2 claim s1/train @eve 2026-11-21T00:00:00Z ttl=9999 len=0\n".format,
    ):
        text = forge(path) if forge in (complete_forgery, forged_seal) else forge()
        type_at_end(path, text)
        writer.append(notes("after"))
        assert Log(path).refresh() == list(writer.log.entries())
    assert {entry.event.kind for entry in sound(path)} == {"post", "seal"}
    assert [entry for entry in sound(path) if entry.author == "eve"] == []
    assert sound(path)[:1] == true


def complete_forgery(path: Path) -> str:
    """A next entry whose chain value is right, as anyone can compute it."""
    place = reached(path)
    draft = Draft(place, 1795238000.0)
    draft.add("eve", Post(ref="s1", body="promote mine"))
    return draft.data.decode()


def forged_seal(path: Path) -> str:
    """A line of text and a seal that covers it properly, with an entry of one's own behind."""
    draft = Draft(reached(path), 1795238000.0)
    draft.seal(b"hello\n")
    draft.add("eve", Post(ref="s1", body="promote mine"))
    return draft.data.decode()


def reached(path: Path) -> Place:
    log = Log(path)
    log.read()
    return log.place


def test_forgeries_typed_while_nobody_writes_are_notes_too(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        writer.append(notes("one"))
    type_at_end(path, complete_forgery(path))
    with LogWriter.open(path):
        pass
    assert [entry.author for entry in sound(path)] == ["ada", "unknown", "log"]
    assert "promote mine" in sound(path)[1].event.body


def test_hostile_bodies_are_never_parsed_as_entries(
    writer: LogWriter, path: Path, corpus: list[tuple[str, Event]], sound: Sound
) -> None:
    true = writer.append(corpus)
    assert sound(path) == true
    assert [entry.event for entry in true] == [event for _, event in corpus]
    bodies = [("ada", Post(ref="s1", body=entry.text)) for entry in true]
    writer.append(bodies)
    assert [entry.event for entry in sound(path)[40:]] == [event for _, event in bodies]


def test_the_seal_of_a_note_reads_as_the_note_for_the_writer_as_for_readers(writer: LogWriter, path: Path) -> None:
    type_at_end(path, "\\## not an entry\n")
    writer.append([])
    own, read = writer.log.refresh(), Log(path).refresh()
    assert own == read and own[0].event.body == "\\## not an entry"


def test_what_is_written_late_into_a_file_that_was_rotated_away_becomes_a_note(
    path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "LOOK_SECONDS", 0.0)
    with LogWriter.open(path, rotate_bytes=1500) as writer:
        with path.open("ab", buffering=0) as slow:
            while not (path.parent / "collaboration/0001.md").exists():
                writer.append(notes("x" * 200))
            slow.write(b"still typing\n")
            writer.append([])
            assert seals(sound(path)) == [("unknown", "note", "still typing")]
            slow.write(b"and on")
            while not (path.parent / "collaboration/0003.md").exists():
                writer.append(notes("y" * 200))
            slow.write(b"\nand on and on")
        true = list(writer.log.entries())
    LogWriter.open(path).close()
    assert sound(path)[: len(true)] == true
    assert [body for _, _, body in seals(sound(path))] == ["still typing", "and on", "and on and on"]
    assert len(list((path.parent / "collaboration").glob("saved-*"))) == 1, "copies that nobody wrote into are gone"


def test_what_is_typed_into_a_full_file_becomes_a_note_of_the_newest(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, rotate_bytes=1500) as writer:
        while not (path.parent / "collaboration/0002.md").exists():
            writer.append(notes("x" * 200))
    full = path.parent / "collaboration/0001.md"
    for word in (
        b"read this again\n",
        b"##### 7 claim s1/train eve 2026-11-24 01:00:00\n<!-- ttl=60 0123456789a -->\n",
        b"## 7 claim s1/train @eve 2026-11-24T01:00:00Z ttl=60 len=0\n\n<!-- /7 0123456789abcdef -->\n",
    ):
        whole = full.read_bytes()
        full.write_bytes(whole + word)
        known = len(Log(path).refresh())
        assert verify(path)[0].file == "collaboration/0001.md"
        LogWriter.open(path).close()
        assert full.read_bytes() == whole
        assert len(sound(path)) == known + 1
    assert seals(sound(path))[0] == ("unknown", "note", "read this again")


def test_an_editor_that_saves_just_when_the_file_is_full_loses_nothing_and_breaks_nothing(
    path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "LOOK_SECONDS", 0.0)
    real = ledger.replace_file
    old = b""

    def delete() -> None:
        path.unlink()

    def save_by_renaming() -> None:
        save(path, old + b"typed at the worst moment\n")

    def save_in_place() -> None:
        path.write_bytes(old + b"typed at the worst moment\n")

    def move_away() -> None:
        path.rename(path.with_suffix(".md~"))

    for at, deed in enumerate([delete, save_by_renaming, save_in_place, move_away]):
        for moment in ("0", "wal"):
            run = path.parent / f"run{at}{moment}" / path.name
            path_was, path = path, run
            busy = []

            def at_the_moment(file: Path, data: bytes) -> None:
                real(file, data)
                if file.name.startswith(moment) and not busy:  # noqa: B023
                    busy.append(deed())  # noqa: B023

            with LogWriter.open(path, rotate_bytes=1500) as writer:
                true = writer.append(notes("one", "two"))
                old = path.read_bytes()
                true += writer.append(notes("x" * 1500))
                monkeypatch.setattr(ledger, "replace_file", at_the_moment)
                true += writer.append(notes("after"))
                writer.append([])
                monkeypatch.setattr(ledger, "replace_file", real)
            assert busy, "the deed was done"
            posts = [entry.event.body for entry in sound(path) if isinstance(entry.event, Post)]
            assert posts == [entry.event.body for entry in true]
            typed = [body for _, why, body in seals(sound(path)) if why == "note"]
            assert typed == ["typed at the worst moment"] * (deed in (save_by_renaming, save_in_place))
            path = path_was


@pytest.mark.parametrize(
    "typed",
    [
        "##### 40 claim data/y eve 2026-11-24 01:00:00\n<!-- ttl=60 0123456789a -->\n",
        "##### 4 head - log 2026-11-24 01:00:00\n<!-- chain=0123456789a mac=- file=collaboration/0003.md 0123456789a -->\n",
        "##### 4 post s1 eve 2026-11-24 01:00:00\n<!-- 0123456789a -->\n",
        "## 40 claim data/y @eve 2026-11-24T01:00:00Z ttl=60 len=0\n\n<!-- /40 0123456789abcdef -->\n",
        "## 4 head - @log 2026-11-24T01:00:00Z chain=0123456789abcdef mac=- file=collaboration/0003.md len=0\n",
        "## 4 post s1 @eve 2026-11-24T01:00:00Z len=0\n\n<!-- /4 0123456789abcdef -->\n",
    ],
)
def test_readers_are_not_misled_by_what_no_writer_has_sealed_yet(path: Path, typed: str, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append(notes("one", "two", "three"))
    reader = Log(path)
    assert reader.refresh() == true
    type_at_end(path, typed)
    assert Log(path).refresh() == true
    assert reader.refresh() == []
    path.write_bytes(path.read_bytes().replace(b"two", b"tWo"))
    assert Log(path).refresh() == true
    assert reader.refresh() == []
    LogWriter.open(path).close()
    assert sound(path)[:3] == true


def test_a_line_like_one_that_was_sealed_before_is_a_note_again(writer: LogWriter, path: Path, sound: Sound) -> None:
    type_at_end(path, "+1 from Bob\n")
    writer.append(notes("one"))
    old = path.read_bytes()
    writer.append(notes("two"))
    save(path, old + b"+1 from Bob\n")
    writer.append([])
    assert [body for _, why, body in seals(sound(path)) if why == "note"] == ["+1 from Bob"] * 2
    whole = path.read_bytes()
    save(path, whole.replace(b"##### 1 ", b"+1 from Bob\n##### 1 ", 1))
    writer.append([])
    assert [body for _, why, body in seals(sound(path)) if why == "note"] == ["+1 from Bob"] * 3


@pytest.mark.parametrize("marks", ["##", "#####"])
@pytest.mark.parametrize(
    "heading",
    ["Plan for tomorrow", "plan for tomorrow", "Post", "plan\n", "post later\n", "Plan\n\nfour streams\n"],
)
def test_a_heading_numbered_like_the_next_entry_is_a_note(
    writer: LogWriter, path: Path, heading: str, marks: str, sound: Sound
) -> None:
    writer.append(notes("one"))
    type_at_end(path, f"{marks} 2 {heading}")
    writer.append(notes("two"))
    assert ("unknown", "note", f"{marks} 2 {heading}".strip("\n")) in seals(sound(path))
