"""Changed bytes: every flip is found, and found where it is."""

from __future__ import annotations

import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from swarm.event import Event
from swarm.events import Head, Post
from swarm.log import Entry, Log, LogDamaged, LogWriter, verify
from swarm.log.chain import Place
from swarm.log.draft import Draft
from swarm.log.forms import HEAD, HEADER_LINE
from swarm.log.wal import frames_of

FLIPS = 3000
SECRET = b"the run's own"
Items = list[tuple[str, Event]]


@pytest.fixture
def run(path: Path, corpus: Items) -> Path:
    """A log of three files with signed heads, a typed note and a torn tail, both sealed."""
    with LogWriter.open(path, secret=SECRET, head_every=8, rotate_bytes=2000) as writer:
        for at, item in enumerate(corpus):
            writer.append([item])
            if at == 17:
                path.write_bytes(path.read_bytes() + b"I think s3 diverged\nstop it -- Bob")
    assert len(list((path.parent / "collaboration").glob("0*.md"))) >= 2
    return path


def flipped(file: Path, rng: random.Random) -> tuple[int, bytes]:
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    return at, bytes(data)


def test_three_thousand_flipped_bits_are_all_detected_and_located(run: Path) -> None:
    rng = random.Random(3)
    assert verify(run, secret=SECRET) == []
    files = [run, *sorted((run.parent / "collaboration").glob("0*.md"))]
    entries = {name_of(file, run): spans_of(file) for file in files}
    for _ in range(FLIPS):
        file = rng.choice(files)
        whole = file.read_bytes()
        at, data = flipped(file, rng)
        file.write_bytes(data)
        faults = [fault for fault in verify(run, secret=SECRET) if fault.file == name_of(file, run)]
        assert faults, (file, at)
        begin, end, seq = next(span for span in entries[name_of(file, run)] if span[0] <= at < span[1])
        assert begin <= faults[0].offset < end and faults[0].seq == seq, (file, at, faults)
        assert faults[0].line == whole.count(b"\n", 0, faults[0].offset) + 1 or data[at] == 10
        file.write_bytes(whole)


def name_of(file: Path, run: Path) -> str:
    return str(file.relative_to(run.parent))


def spans_of(file: Path) -> list[tuple[int, int, int]]:
    """Begin, end and seq of each entry of a file, sealed text counted to its seal."""
    data, spans, at = file.read_bytes(), [], 0
    while at < len(data):
        end = data.index(b"\n", data.index(b"\n<!-- ", at) + 1) + 1
        spans.append((at, end, int(HEADER_LINE.findall(data[at:end])[-1])))
        at = end
    return spans


def test_a_reader_never_takes_a_changed_entry(path: Path, corpus: Items) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append(corpus)
    whole, rng = path.read_bytes(), random.Random(5)
    for there_is_a_write_ahead_file in (True, False):
        for _ in range(300):
            at, data = flipped(path, rng)
            path.write_bytes(data)
            found = taken(path)
            assert found == true[: len(found)] and (len(found) == len(true)) == there_is_a_write_ahead_file, at
            path.write_bytes(whole)
        shutil.rmtree(path.parent / "collaboration", ignore_errors=True)


def taken(path: Path) -> list[Entry]:
    try:
        return Log(path).refresh()
    except LogDamaged:
        return []


def test_several_faults_are_listed_each_at_its_entry(path: Path) -> None:
    with LogWriter.open(path) as writer:
        writer.append([("ada", Post(ref="run", body=f"note {n}")) for n in range(1, 31)])
    path.write_bytes(path.read_bytes().replace(b"note 5\n", b"note 6\n").replace(b"note 20", b"note 2O"))
    assert [fault.seq for fault in verify(path)] == [5, 20]
    lines, head = path.read_text().splitlines(keepends=True), HEAD.count(b"\n")
    path.write_text("".join(lines[: head + 3 * 9] + lines[head + 3 * 11 :]))
    assert [(fault.seq, fault.why) for fault in verify(path)][1] == (
        10,  # 12 hangs on the chain value of 11
        "entry 10-12 (or text that it seals) is changed or missing",
    )


def test_entries_cut_off_at_a_boundary_are_missed_by_the_write_ahead_file(path: Path) -> None:
    with LogWriter.open(path) as writer:
        for n in range(1, 6):
            writer.append([("ada", Post(ref="run", body=f"note {n}"))])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"##### 4 ")])
    [fault] = verify(path)
    assert (fault.seq, fault.offset) == (4, whole.index(b"##### 4 ")) and "missing" in fault.why


def test_a_rotated_file_that_is_gone_is_named(run: Path) -> None:
    (run.parent / "collaboration/0001.md").unlink()
    assert verify(run)[0].file == "collaboration/0001.md"
    with pytest.raises(LogDamaged, match=r"0001\.md: the file is missing"):
        Log(run).refresh()
    with pytest.raises(LogDamaged, match=r"0001\.md"):
        LogWriter.open(run)


def test_a_history_that_was_chained_anew_shows_only_to_who_has_the_secret(path: Path) -> None:
    with LogWriter.open(path, secret=SECRET, head_every=4) as writer:
        for n in range(12):
            writer.append([("ada", Post(ref="run", body=f"note {n}"))])
    forged = Draft(Place(), 1795238000.0)
    for entry in Log(path).refresh():
        event = entry.event.model_copy(update={"body": "never"}) if entry.seq == 2 else entry.event
        if "chain" in event.facts():
            event = event.model_copy(update={"chain": forged.place.chain.decode()})
        forged.add(entry.author, event)
    path.write_bytes(forged.data)
    shutil.rmtree(path.parent / "collaboration")
    assert verify(path) == []
    assert "not signed" in verify(path, secret=SECRET)[0].why


def test_a_log_without_signed_heads_shows_to_who_has_the_secret(path: Path) -> None:
    with LogWriter.open(path) as writer:
        writer.append([("ada", Post(ref="run", body="x"))] * 30)
    assert verify(path, secret=SECRET, head_every=10)[0].why == "no signed head in the 18 entries before"


def test_heads_stand_at_most_so_far_apart_however_large_the_groups_are(path: Path) -> None:
    with LogWriter.open(path, secret=SECRET, head_every=8) as writer:
        for size in (1, 30, 7, 8, 9):
            writer.append([("ada", Post(ref="run", body="x"))] * size)
    heads = [entry.seq for entry in Log(path).refresh() if isinstance(entry.event, Head)]
    assert {later - head for head, later in pairwise([0, *heads])} == {9}
    assert verify(path, secret=SECRET, head_every=8) == []


def test_a_history_without_its_heads_shows_to_who_has_the_secret(path: Path) -> None:
    with LogWriter.open(path, secret=SECRET) as writer:
        true = writer.append([("ada", Post(ref="run", body="x"))] * 300)
    forged = Draft(Place(), 1795238000.0)
    for entry in true:
        forged.add(entry.author, entry.event)
    path.write_bytes(forged.data)
    assert "not those that the write-ahead file holds" in verify(path)[0].why
    shutil.rmtree(path.parent / "collaboration")
    assert verify(path) == []
    assert "no signed head" in verify(path, secret=SECRET)[0].why


def test_another_runs_log_in_its_place_is_a_fault(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "COLLABORATION.md"
    for log, count in ((path, 3), (other, 5)):
        with LogWriter.open(log) as writer:
            writer.append([("ada", Post(ref="run", body=f"{log} {n}")) for n in range(count)])
    path.write_bytes(other.read_bytes())
    [fault] = verify(path)
    assert fault.seq == 1 and "not those" in fault.why


def test_an_entry_that_somebody_typed_rightly_chained_is_a_fault_and_nobodys_entry(path: Path) -> None:
    with LogWriter.open(path, secret=SECRET) as writer:
        true = writer.append([("ada", Post(ref="run", body="true"))])
    whole = path.read_bytes()
    reader = Log(path)
    reader.read()
    forged = Draft(reader.place, 1795238000.0)
    forged.add("eve", Post(ref="run", body="forged"))
    path.write_bytes(whole + forged.data)
    [fault] = verify(path, secret=SECRET)
    assert (fault.offset, fault.seq) == (len(whole), 2) and "does not hold" in fault.why
    assert Log(path).refresh() == true


@pytest.mark.parametrize("left", [0.5, 0.0])
def test_a_write_ahead_file_that_lost_its_end_is_a_fault(path: Path, left: float) -> None:
    with LogWriter.open(path) as writer:
        for n in range(6):
            writer.append([("ada", Post(ref="run", body=f"note {n}"))])
    wal = path.parent / "collaboration/wal"
    data = wal.read_bytes()
    used = int(len(data.rstrip(b"\0")) * left)
    frames, end = frames_of(data[: used + 1] + bytes(used))
    wal.write_bytes(data[:end] + bytes(len(data) - end))
    assert len(frames) < 6
    assert [fault.file for fault in verify(path)] == ["COLLABORATION.md" if end else "collaboration/wal"]


def test_a_copy_that_was_kept_is_checked_too(path: Path) -> None:
    with LogWriter.open(path) as writer:
        writer.append([("ada", Post(ref="run", body="one"))])
        path.write_bytes(b"something else\n")
        writer.append([])
    [saved] = (path.parent / "collaboration").glob("saved-*.md")
    assert saved.read_bytes() == b"something else\n" and verify(path) == []
    saved.write_bytes(b"something elsE\n")
    [fault] = verify(path)
    assert (fault.file, fault.seq) == (f"collaboration/{saved.name}", 3)
    saved.unlink()
    assert verify(path)[0].why == "what was kept here is changed or missing"


def test_one_changed_digit_of_a_head_is_not_reported_as_thousands_of_faults(run: Path) -> None:
    run.write_bytes(run.read_bytes().replace(b"file=collaboration/0", b"file=collaboration/8", 1))
    assert len(verify(run)) < 6


def test_a_changed_or_torn_write_ahead_file_is_a_fault_too(run: Path) -> None:
    wal = run.parent / "collaboration/wal"
    data = bytearray(wal.read_bytes())
    data[len(data.rstrip(b"\0")) // 2] ^= 4
    wal.write_bytes(data)
    assert [fault.file for fault in verify(run)] == ["collaboration/wal"]


def test_damage_in_the_middle_is_mended_from_the_write_ahead_file_and_reported(path: Path) -> None:
    with LogWriter.open(path) as writer:
        true = writer.append([("ada", Post(ref="run", body=f"note {n}")) for n in range(9)])
    path.write_bytes(path.read_bytes().replace(b"note 4", b"note X"))
    with LogWriter.open(path) as writer:
        entries = list(writer.log.entries())
    assert entries[:9] == true
    assert "note X" in entries[9].event.body and "entries 5 were not in the file" in entries[10].event.body
    assert verify(path) == []


def test_damage_without_a_write_ahead_file_is_refused_with_its_line(path: Path) -> None:
    with LogWriter.open(path) as writer:
        entries = writer.append([("ada", Post(ref="run", body=f"note {n}")) for n in range(9)])
    line = path.read_text()[: path.read_text().index(entries[4].text)].count("\n") + 1
    path.write_bytes(path.read_bytes().replace(b"note 4", b"note X"))
    shutil.rmtree(path.parent / "collaboration")
    with pytest.raises(LogDamaged, match=rf"COLLABORATION.md:{line}: entry 5 is changed"):
        LogWriter.open(path)
