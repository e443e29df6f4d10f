"""Readers take no lock and believe no editor: what they read is what was recorded, at any moment."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import Post
from swarm.log import Entry, Log, LogDamaged, LogWriter, verify

Sound = Callable[[Path], list[Entry]]


def notes(*bodies: str) -> list[tuple[str, Event]]:
    return [("ada", Post(ref="s1", body=body)) for body in bodies]


@pytest.fixture
def true(path: Path) -> list[Entry]:
    """The entries of a log that nobody writes any more, in two files."""
    with LogWriter.open(path, rotate_bytes=1500) as writer:
        writer.append(notes("one", "x" * 1500))
        for body in ("two", "three", "four"):
            writer.append(notes(body))
        return list(writer.log.entries())


@pytest.mark.parametrize("deed", ["cut", "emptied", "deleted", "edited", "forged", "moved away"])
def test_what_people_do_to_the_file_changes_nothing_of_what_is_read(path: Path, true: list[Entry], deed: str) -> None:
    following = Log(path)
    assert following.refresh() == true
    whole = path.read_bytes()
    match deed:
        case "cut":
            path.write_bytes(whole[: len(whole) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "deleted":
            path.unlink()
        case "edited":
            path.write_bytes(whole.replace(b"three", b"thrEe"))
        case "forged":
            path.write_bytes(whole + next_entry(path))
        case "moved away":
            path.rename(path.with_suffix(".md~"))
    assert Log(path).refresh() == true
    assert following.refresh() == [] and list(following.entries()) == true
    assert verify(path) != []


def next_entry(path: Path) -> bytes:
    """An entry that is rightly chained on the last one, as anyone can compute it."""
    from swarm.log.draft import Draft

    log = Log(path)
    log.read()
    draft = Draft(log.place, 1795238000.0)
    draft.add("eve", Post(ref="s1", body="promote mine"))
    return draft.data


def test_the_same_change_in_both_files_is_damage_and_no_shorter_log(path: Path, true: list[Entry]) -> None:
    for file in (path, path.parent / "collaboration/wal"):
        file.write_bytes(file.read_bytes().replace(b"three", b"thrEe"))
    with pytest.raises(LogDamaged, match=f"entry {true[-2].seq} is changed"):
        Log(path).refresh()


def test_a_copy_of_the_file_alone_is_read_by_its_chain(path: Path, tmp_path: Path) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append(notes("one", "two"))
    copy = Path(shutil.copy(path, tmp_path / path.name))
    reader = Log(copy)
    assert reader.refresh() == true
    copy.write_bytes(path.read_bytes() + b"typed")
    assert reader.refresh() == [] and Log(copy).refresh() == true
    copy.write_bytes(path.read_bytes().replace(b"one", b"oNe"))
    for _ in range(2):
        with pytest.raises(LogDamaged, match="entry 1 is changed"):
            reader.refresh()


def test_two_entries_within_one_tick_of_the_file_systems_clock_are_both_seen(path: Path) -> None:
    with LogWriter.open(path) as writer:
        reader = Log(path)
        for number in range(500):
            told = writer.append(notes(str(number)))
            os.utime(path.parent / "collaboration/wal", ns=(1, 1))
            assert reader.refresh() == told


def test_a_new_write_ahead_file_with_the_inode_number_of_an_old_one_is_distinguished_from_it(path: Path) -> None:
    """File systems give the numbers of files that are gone to new ones."""
    wal, old = path.parent / "collaboration/wal", path.parent / "collaboration/old"
    with LogWriter.open(path, rotate_bytes=3000) as writer:
        writer.append(notes("one", "two", "x" * 900))
        reader = Log(path)
        assert len(reader.refresh()) == 3
        old.hardlink_to(wal)
        while not (path.parent / "collaboration/0002.md").exists():
            writer.append(notes("y" * 900))
    old.write_bytes(wal.read_bytes())
    old.replace(wal)
    assert reader.refresh() == list(writer.log.entries(3))


WRITER = """
import sys, time
from pathlib import Path
from swarm.events import Post
from swarm.log import LogWriter, ledger
ledger.LOOK_SECONDS, ledger.SETTLE_SECONDS = 0.05, 0.001
end = time.monotonic() + float(sys.argv[2])
with LogWriter.open(Path(sys.argv[1]), rotate_bytes=6000, secret=b"s", head_every=16) as writer:
    count = 0
    while time.monotonic() < end:
        writer.append([("ada", Post(ref="s1", body=f"note {count}\\n" + "x" * (count % 200)))])
        count += 1
print(count)
"""
READER = """
import select, sys
from pathlib import Path
from swarm.log import Log
log, told, last = Log(Path(sys.argv[1])), 0, False
while not last:
    last = sys.stdin in select.select([sys.stdin], [], [], 0)[0]  # closed: whoever wrote has ended, and this is the last look
    for entry in log.refresh():
        told += 1
        assert entry.seq == told
print(told, log.place.chain.decode())
"""


def test_readers_of_a_busy_log_never_err_while_a_person_saves_edits_and_deletes_it(
    path: Path, sound: Sound, torture: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 60.0 if torture else 4.0

    def run(code: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", code, path, str(seconds)]
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    processes = [run(WRITER), run(READER), run(READER)]
    rng, copies, end, deeds = random.Random(5), [b""], time.monotonic() + seconds, 0
    while time.monotonic() < end:
        time.sleep(rng.uniform(0.0, 0.05))
        with suppress(FileNotFoundError):
            meddle(path, rng, copies)
            deeds += 1
    [wrote, *read] = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    with LogWriter.open(path, secret=b"s", head_every=16):
        pass
    posts = [entry for entry in sound(path) if isinstance(entry.event, Post)]
    assert [entry.event.body.split("\n")[0] for entry in posts] == [f"note {n}" for n in range(int(wrote[0]))]
    assert read[0] == read[1]
    files = len(list((path.parent / "collaboration").glob("0*.md"))) + 1
    with capsys.disabled():
        print(f"\n{deeds} saves, edits and deletions: {len(posts)} entries in {files} files, 0 lost, no reader erred")


def meddle(path: Path, rng: random.Random, copies: list[bytes]) -> None:
    """What an editor does to the file, at a bad moment."""
    match rng.randrange(6):
        case 0:
            copies.append(path.read_bytes())
        case 1:
            path.write_bytes(rng.choice(copies))
        case 2:
            new = path.with_suffix(".swp")
            new.write_bytes(rng.choice(copies) + b"typed into an old copy\n")
            new.replace(path)
        case 3:
            with path.open("ab") as file:
                file.write(b"typed at the end\n")
        case 4:
            path.unlink()
        case 5:
            with path.open("r+b") as file:
                file.seek(rng.randrange(max(1, path.stat().st_size)))
                file.write(b"#")


def test_a_published_entry_is_taken_without_a_look_at_the_files(path: Path) -> None:
    following = Log(path)
    with LogWriter.open(path) as writer:
        writer.append(notes("one"))
        following.refresh()
        published = [entry.text for entry in writer.append(notes("two", "three"))]
        hidden = path.parent.with_name(f"{path.parent.name}-elsewhere")
        path.parent.rename(hidden)
        assert [body_of(following.next_published(text)) for text in published] == ["two", "three"]
        hidden.rename(path.parent)
        assert following.refresh() == []
        writer.append(notes("four"))
        assert [body_of(entry) for entry in following.refresh()] == ["four"]
        assert list(following.entries()) == list(writer.log.entries())


def test_what_does_not_follow_the_last_entry_is_not_taken_and_reading_again_tells_all(path: Path) -> None:
    following = Log(path)
    with LogWriter.open(path, rotate_bytes=1500) as writer:
        [first] = writer.append(notes("one"))
        following.refresh()
        assert following.next_published(first.text) is None, "known"
        [_, third] = writer.append(notes("two", "three"))
        assert following.next_published(third.text) is None, "one is missing"
        forged = next_entry(path).decode().replace("promote mine", "promote it")
        assert [body_of(entry) for entry in following.refresh()] == ["two", "three"]
        assert following.next_published(forged) is None, "not chained on what stands"
        published = [entry.text for n in range(40) for entry in writer.append(notes(f"note {n}"))]
        bodies = [body_of(entry) for text in published for entry in news(following, text)]
        assert [body for body in bodies if body.startswith("note")] == [f"note {n}" for n in range(40)]
        assert list(following.entries()) == list(writer.log.entries()), "over rotations too"


def news(log: Log, published: str) -> list[Entry]:
    """What a watcher folds when this was published."""
    entry = log.next_published(published)
    return [entry] if entry else log.refresh()


def body_of(entry: Entry | None) -> str:
    return entry.event.body if entry else "nothing"
