"""The lock, group commits of many threads, the clock, rotation, heads, and a disk that is really full."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from swarm.event import Event
from swarm.events import Head, Post, Renew, Task
from swarm.log import Entry, Log, LogDamaged, LogError, LogFull, LogHeld, LogWriter, run_is_alive, wal
from swarm.log.forms import HEAD
from tests.swarm.log.test_crashes import Disk, failing

Sound = Callable[[Path], list[Entry]]


def note(text: str) -> tuple[str, Event]:
    return ("ada", Post(ref="s1", body=text))


def test_a_second_writer_learns_who_holds_the_log(path: Path) -> None:
    assert not run_is_alive(path)
    with LogWriter.open(path):
        assert run_is_alive(path)
        with pytest.raises(LogHeld, match=f"held by process {os.getpid()}"):
            LogWriter.open(path, wait_seconds=0.02)
    assert not run_is_alive(path)


def test_the_lock_goes_with_its_holder_however_that_ends(path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from swarm.log import LogWriter; LogWriter.open(Path(sys.argv[1])); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        holder.stdout.readline()
        assert run_is_alive(path)
        with pytest.raises(LogHeld, match=f"process {holder.pid}"):
            LogWriter.open(path)
        holder.kill()
    assert not run_is_alive(path)
    LogWriter.open(path).close()


def test_looking_whether_a_run_is_alive_never_keeps_a_writer_out(path: Path) -> None:
    LogWriter.open(path).close()
    done = False

    def look() -> None:
        while not done:
            run_is_alive(path)

    looker = Thread(target=look)
    looker.start()
    for _ in range(100):
        LogWriter.open(path, wait_seconds=1).close()
    done = True
    looker.join()


def test_a_writer_whose_folder_is_taken_away_stops_before_it_forks_the_history(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        writer.append([note("one")])
        shutil.rmtree(path.parent / "collaboration")
        with LogWriter.open(path) as other:
            with pytest.raises(LogDamaged, match="open the log again"):
                writer.append([note("two")])
            other.append([note("three")])
    assert [entry.event.body for entry in sound(path)] == ["one", "three"]


def test_a_group_is_all_or_nothing_and_others_are_not_held_up(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        with pytest.raises(LogError, match="author"):
            writer.append([note("one"), ("No Name", Task(ref="s1/train"))])
        [entry] = writer.append([note("two")], via="local")
    assert sound(path) == [entry] and (entry.seq, entry.via) == (1, "local")


def test_callers_that_wait_share_one_sync(path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(wal.os, "fdatasync", lambda fd: (syncs.append(fd), time.sleep(0.002)))
    with LogWriter.open(path) as writer:
        told: list[list[Entry]] = []
        threads = [
            Thread(target=lambda name=n: told.extend(writer.append([note(f"{name}-{k}")]) for k in range(50)))
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sound(path) == sorted((entries[0] for entries in told), key=lambda entry: entry.seq)
    assert len(told) == 800 and len(syncs) <= 200


def test_who_is_interrupted_while_it_waits_takes_its_entries_back(path: Path, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        writer._busy = True  # another caller is just writing
        signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            writer.append([note("interrupted")])
        writer._busy = False
        writer.append([note("said again")])
    assert [entry.event.body for entry in sound(path)] == ["said again"]


def test_who_is_interrupted_while_it_writes_lets_nobody_wait_for_ever(
    path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    with LogWriter.open(path) as writer:
        writer.append([note("one")])
        monkeypatch.setattr(wal.os, "fdatasync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append([note("two")])
        monkeypatch.undo()
        with pytest.raises(LogDamaged, match="open the log again"):
            writer.append([note("three")])
    LogWriter.open(path).close()
    assert sound(path)[0].event.body == "one"


def test_a_disk_that_is_full_at_any_step_of_opening_or_closing_leaves_no_lock_and_no_open_file(path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for number in range(1, 30):
        run = path.parent / f"run{number}" / path.name
        before = len(list(Path("/proc/self/fd").iterdir()))
        with suppress(LogFull, OSError), failing(Disk(number, full, for_good=False)):
            LogWriter.open(run).close()
        assert not run_is_alive(run)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        LogWriter.open(run).close()


def test_a_disk_that_is_full_at_opening_is_reported_as_such(path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    LogWriter.open(path).close()
    for number in range(1, 3):
        with pytest.raises(LogFull, match="free some space"), failing(Disk(number, full, for_good=False)):
            LogWriter.open(path)


@pytest.mark.parametrize(
    "item", [("\udc80", Post(ref="s1", body="x")), ("ada", Renew.model_construct(ref="s1", tok=10**5000, ttl=1))]
)
def test_what_cannot_be_written_costs_its_caller_an_error_and_nobody_else(
    path: Path, item: tuple[str, Event], sound: Sound
) -> None:
    with LogWriter.open(path) as writer:
        with pytest.raises(LogError, match="not an entry"):
            writer.append([item])
        writer.append([note("goes on")])
    assert [entry.event.body for entry in sound(path)] == ["goes on"]


def test_times_never_go_back_whatever_the_clock_does(path: Path, sound: Sound) -> None:
    clock = iter([1000.0, 1000.9, 2000.0, 500.0, 2000.5, 1e9, 3.0, 1e9 + 2])
    with LogWriter.open(path, clock=lambda: next(clock)) as writer:
        for _ in range(6):
            writer.append([note("x")])
    with LogWriter.open(path, clock=lambda: 7.0) as writer:
        writer.append([note("after a restart with the clock set back")])
    assert [entry.time for entry in sound(path)] == [1000, 2000, 2000, 2000, 1e9, 1e9, 1e9]


def test_a_full_file_is_put_aside_and_the_next_begins_with_a_head(path: Path, sound: Sound) -> None:
    reader = Log(path)
    followed: list[Entry] = []
    with LogWriter.open(path, rotate_bytes=1000) as writer:
        for n in range(60):
            writer.append([note(f"note {n}")])
            if n % 7 == 0:
                followed += reader.refresh()
    followed += reader.refresh()
    entries = sound(path)
    assert followed == entries == list(writer.log.entries())
    heads = [entry for entry in entries if isinstance(entry.event, Head)]
    assert [head.event.file for head in heads] == [f"collaboration/{n:04}.md" for n in range(1, len(heads) + 1)]
    assert all(head.event.chain == entries[head.seq - 2].chain for head in heads)
    assert path.read_text().startswith(f"{HEAD.decode()}##### {heads[-1].seq} head - log ")
    assert (path.parent / "collaboration/wal").stat().st_size < 2 * wal.CLAIM_BYTES


def test_heads_are_signed_every_so_many_entries(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, secret=b"s", head_every=10) as writer:
        for _ in range(15):
            assert len(writer.append([note("a"), note("b")])) == 2
    heads = [entry for entry in sound(path) if isinstance(entry.event, Head)]
    assert [head.seq for head in heads] == [11, 22, 33]
    assert len({head.event.mac for head in heads}) == 3


def test_a_reader_sees_what_the_writer_says_at_every_moment(path: Path, corpus: list[tuple[str, Event]]) -> None:
    reader = Log(path)
    assert (reader.refresh(), reader.last_seq, list(reader.entries())) == ([], 0, [])
    with LogWriter.open(path, rotate_bytes=2000) as writer:
        for item in corpus:
            told = writer.append([item])
            assert reader.refresh()[-1:] == told
            assert reader.refresh() == []
        assert list(reader.entries(since=38)) == list(writer.log.entries())[38:]


def test_a_reader_keeps_what_it_knows_while_an_old_copy_stands_there(path: Path) -> None:
    with LogWriter.open(path) as writer:
        writer.append([note("one")])
        old = path.read_bytes()
        writer.append([note("two")])
        reader = Log(path)
        assert len(reader.refresh()) == 2
        path.write_bytes(old + b"typed\n")
        assert reader.refresh() == [] and reader.last_seq == 2
        writer.append([note("three")])
        assert [entry.event.kind for entry in reader.refresh()] == ["seal", "seal", "post"]


def test_a_reader_that_remembers_notices_a_rewritten_history(path: Path) -> None:
    for text in ("true", "false"):
        path.unlink(missing_ok=True)
        shutil.rmtree(path.parent / "collaboration", ignore_errors=True)
        with LogWriter.open(path) as writer:
            writer.append([note(text), note("more")])
        if text == "true":
            reader = Log(path)
            reader.refresh()
    with pytest.raises(LogDamaged, match="the history up to entry 2 was rewritten"):
        reader.refresh()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_refuses_clearly_and_the_log_goes_on_when_there_is_space(small_disk: Path, sound: Sound) -> None:
    path, ballast = small_disk / "COLLABORATION.md", small_disk / "ballast"
    kept: list[Entry] = []
    with LogWriter.open(path, rotate_bytes=30_000) as writer:
        for spare in (0, 3_000, 9_000, 40_000):
            ballast.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - spare)))
            with pytest.raises(LogFull, match="no space to append"):
                while True:
                    kept += writer.append([note("x" * 1500)])
            assert posts(sound(path)) == kept
            ballast.write_bytes(b"")
            kept += writer.append([note("there is space again")])
    assert posts(sound(path)) == kept


def posts(entries: list[Entry]) -> list[Entry]:
    return [entry for entry in entries if isinstance(entry.event, Post)]


def test_full_files_are_believed_only_as_the_next_head_states_them(path: Path, sound: Sound) -> None:
    with LogWriter.open(path, rotate_bytes=1500) as writer:
        for n in range(40):
            writer.append([note(f"note {n}")])
            if n % 9 == 0:
                path.write_bytes(path.read_bytes() + b"typed in between")
        true = list(writer.log.entries())
    assert sound(path) == true
    first = path.parent / "collaboration/0001.md"
    whole = first.read_bytes()
    first.write_bytes(whole.replace(b"note 3\n", b"note 4\n"))
    with pytest.raises(LogDamaged, match=r"0001\.md:\d+: entry 5 is changed"):
        Log(path).refresh()
    with pytest.raises(LogDamaged, match=r"0001\.md"):
        LogWriter.open(path)
    first.write_bytes(whole)
    assert sound(path) == true


@pytest.mark.parametrize(
    "torn",
    [b"##### 2 post s1 ada 2026-11-21 05:12:33\nhalf", b"## 2 post s1 @ada 2026-11-21T05:12:33Z len=9\nhalf"],
)
def test_a_torn_entry_in_a_full_file_stays_sealed(path: Path, torn: bytes, sound: Sound) -> None:
    with LogWriter.open(path) as writer:
        writer.append([note("one")])
    path.write_bytes(path.read_bytes() + torn)
    shutil.rmtree(path.parent / "collaboration")
    with LogWriter.open(path, rotate_bytes=400) as writer:
        for n in range(20):
            writer.append([note(f"note {n}")])
        true = list(writer.log.entries())
    assert sound(path) == true and true[1].event.kind == "seal"
