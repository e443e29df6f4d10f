"""The file cut at every byte, with and without its write-ahead file; and the write-ahead file cut at every byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from swarm.event import Event
from swarm.events import Post, Seal
from swarm.log import Entry, Log, LogWriter

Items = list[tuple[str, Event]]
Sound = Callable[[Path], list[Entry]]
AFTER = ("bob", Post(ref="s9", body="after"))


def written(path: Path, corpus: Items) -> tuple[bytes, bytes, list[Entry]]:
    """The bytes of log and write-ahead file after the corpus went in, in groups of four."""
    with LogWriter.open(path) as writer:
        for at in range(0, len(corpus), 4):
            writer.append(corpus[at : at + 4])
    return path.read_bytes(), (path.parent / "collaboration/wal").read_bytes(), Log(path).refresh()


def events_of(entries: list[Entry]) -> list[Event]:
    return [entry.event for entry in entries if not isinstance(entry.event, Seal)]


def ends_of(whole: bytes, entries: list[Entry]) -> list[int]:
    return [whole.index(f" {entry.chain} -->\n".encode()) + len(f" {entry.chain} -->") for entry in entries]


def test_cut_at_every_byte_without_a_write_ahead_file_every_whole_entry_is_kept(
    path: Path, corpus: Items, sound: Sound
) -> None:
    whole, _, entries = written(path, corpus)
    events, ends = [entry.event for entry in entries], ends_of(whole, entries)
    for cut in range(len(whole) + 1):
        shutil.rmtree(path.parent / "collaboration")
        path.write_bytes(whole[:cut])
        with LogWriter.open(path) as writer:
            writer.append([AFTER])
        kept = sum(end <= cut for end in ends)
        now = sound(path) if cut % 8 == 0 else Log(path).refresh()
        assert [entry.seq for entry in now] == list(range(1, len(now) + 1))
        assert events_of(now) == [*events[:kept], AFTER[1]], cut
        torn = cut > 0 and cut not in ends and whole[:cut].removesuffix(b"\n") != whole[: ends[kept - 1]]
        assert [entry.event.why for entry in now if isinstance(entry.event, Seal)] == ["torn"] * torn, cut
        assert path.read_bytes().startswith(whole[:cut])


def test_cut_at_every_byte_with_its_write_ahead_file_everything_comes_back(
    path: Path, corpus: Items, sound: Sound, torture: bool
) -> None:
    whole, _, entries = written(path, corpus)
    wal = (path.parent / "collaboration/wal").read_bytes()
    for cut in range(0, len(whole), 1 if torture else 11):
        path.write_bytes(whole[:cut])
        (path.parent / "collaboration/wal").write_bytes(wal)
        with LogWriter.open(path) as writer:
            writer.append([AFTER])
        now = sound(path)
        assert now[: len(entries)] == entries
        assert events_of(now)[len(entries) :] == [AFTER[1]]
        assert path.read_bytes().startswith(whole)


def test_a_write_ahead_file_cut_at_every_byte_yields_whole_groups(
    path: Path, corpus: Items, sound: Sound, torture: bool
) -> None:
    _, wal, entries = written(path, corpus)
    used = len(wal.rstrip(b"\0")) + 1
    for cut in range(0, used, 1 if torture else 13):
        path.unlink()
        (path.parent / "collaboration/wal").write_bytes(wal[:cut])
        with LogWriter.open(path) as writer:
            back = [entry for entry in writer.log.entries() if not isinstance(entry.event, Seal)]
            assert len(back) % 4 == 0 and back == entries[: len(back)]
            writer.append([AFTER])
        sound(path)


def test_a_damaged_write_ahead_file_costs_nothing_while_the_log_is_whole(
    path: Path, corpus: Items, sound: Sound
) -> None:
    whole, wal, entries = written(path, corpus)
    for at in range(0, len(wal.rstrip(b"\0")), 97):
        path.write_bytes(whole)
        (path.parent / "collaboration/wal").write_bytes(wal[:at] + bytes([wal[at] ^ 1]) + wal[at + 1 :])
        with LogWriter.open(path) as writer:
            assert list(writer.log.entries()) == entries
            writer.append([AFTER])
        assert sound(path)[-1].event == AFTER[1]
