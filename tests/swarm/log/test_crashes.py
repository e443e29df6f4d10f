"""The writer dies at every step that touches the disk, also half-way through a write, and is opened again."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from swarm import files
from swarm.event import Event
from swarm.events import Post
from swarm.log import Entry, LogDamaged, LogFull, LogWriter

Sound = Callable[[Path], list[Entry]]
STEPS = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "link", "unlink", "replace", "open")
"""Functions of `os` by which files are changed (Path.replace and Path.unlink call them)."""


class Died(BaseException):
    """The process is gone: no clean-up of its own may run."""


class Disk:
    """Counts the steps, and at step `number` writes half of what it was given and fails."""

    def __init__(self, number: int, failure: BaseException, *, for_good: bool) -> None:
        self.number, self.failure, self.for_good = number, failure, for_good
        self.steps = 0

    def step(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        changes = name != "open" or (len(args) > 1 and args[1] & os.O_CREAT)
        self.steps += bool(changes)
        if changes and (self.steps == self.number or (self.for_good and self.steps > self.number)):
            if self.steps == self.number and name in ("write", "pwrite"):
                real(args[0], bytes(args[1])[: len(args[1]) // 2], *args[2:])
            raise self.failure
        return real(*args, **kwargs)


@contextmanager
def failing(disk: Disk) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        real = files.exchange
        patch.setattr(files, "exchange", lambda *args, _real=real: disk.step("exchange", _real, *args))
        for name in STEPS:
            real = getattr(os, name)
            patch.setattr(
                os, name, lambda *args, _name=name, _real=real, **kwargs: disk.step(_name, _real, *args, **kwargs)
            )
        yield


def note(text: str) -> tuple[str, Event]:
    return ("ada", Post(ref="s1", body=text))


def story(path: Path, acknowledged: list[str]) -> None:
    """Opening, groups, typed text, an old copy saved, rotations: all that a writer ever does to a disk."""
    with LogWriter.open(path, secret=b"s", head_every=5, rotate_bytes=1500) as writer:
        told = lambda *texts: (writer.append([note(text) for text in texts]), acknowledged.extend(texts))  # noqa: E731
        told("a1", "a2")
        old = path.read_bytes()
        told("b1")
        path.write_bytes(path.read_bytes() + b"typed at the end")
        told("c1", "c2", "c3")
        path.write_bytes(old + b"typed into an old copy\n")
        told("d1" + "x" * 600)
        told("e1" + "y" * 600)
        told("f1" + "z" * 900)
        told("g1")


def posts(entries: list[Entry]) -> list[str]:
    return [entry.event.body for entry in entries if isinstance(entry.event, Post)]


def let_go(path: Path) -> None:
    """What the kernel does for a dead process: closes all it had open in the run's folder."""
    for fd in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):
            if fd.readlink().is_relative_to(path.parent):
                os.close(int(fd.name))


def steps_of_story(path: Path) -> int:
    counting = Disk(0, Died(), for_good=False)
    with failing(counting):
        story(path, [])
    return counting.steps


def test_a_crash_at_any_step_loses_nothing_acknowledged_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, path: Path, sound: Sound
) -> None:
    count = steps_of_story(path)
    assert count > 60
    for number in range(1, count + 1):
        run = path.parent / f"run{number}" / path.name
        acknowledged: list[str] = []
        with suppress(Died), failing(Disk(number, Died(), for_good=True)):
            story(run, acknowledged)
        let_go(run)
        with LogWriter.open(run, secret=b"s", head_every=5, rotate_bytes=1500) as writer:
            writer.append([note("after")])
        kept = posts(sound(run))
        assert not any("## " in entry.event.body for entry in sound(run)), (
            "nothing of the log's own was taken for typed"
        )
        assert len(kept) == len(set(kept)), number
        assert kept[: len(acknowledged)] == acknowledged and kept[-1] == "after", number
        everything = b"".join(file.read_bytes() for file in run.parent.rglob("*.md"))
        assert (b"typed at the end" in everything) == (b"b1" in everything and len(acknowledged) >= 3) or len(
            acknowledged
        ) == 3


def test_a_disk_that_is_full_at_any_step_refuses_one_group_and_takes_it_later(path: Path, sound: Sound) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with LogWriter.open(path, rotate_bytes=700) as writer:
        for number in range(1, 25):
            before = writer.log.last_seq
            texts = [f"{number}-{n} " + "x" * 40 for n in range(3)]
            try:
                with failing(Disk(number, full, for_good=False)):
                    writer.append([note(text) for text in texts])
            except LogFull as refused:
                assert "no space to append" in str(refused) and refused.errno == errno.ENOSPC
                assert posts(sound(path)) == posts(list(writer.log.entries()))
                assert texts[0] not in posts(list(writer.log.entries(before)))
                writer.append([note(text) for text in texts])
        kept = posts(sound(path))
    assert kept == [f"{number}-{n} " + "x" * 40 for number in range(1, 25) for n in range(3)]


def test_a_disk_that_is_full_for_good_leaves_nothing_half_written(path: Path, sound: Sound) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with LogWriter.open(path) as writer:
        writer.append([note("one")])
        whole = path.read_bytes()
        for number in range(1, 4):
            disk = Disk(number, full, for_good=False)
            with suppress(LogFull), failing(disk):
                writer.append([note("x" * 200_000)])
                pytest.fail("there was no space")
            assert path.read_bytes() == whole
        writer.append([note("two")])
    assert posts(sound(path)) == ["one", "two"]


def test_a_broken_disk_ends_the_writer_with_a_clear_error(path: Path, sound: Sound) -> None:
    broken = OSError(errno.EIO, os.strerror(errno.EIO))
    with LogWriter.open(path) as writer:
        writer.append([note("one")])
        with pytest.raises(Exception, match="cannot write"), failing(Disk(2, broken, for_good=False)):
            writer.append([note("two")])
        with pytest.raises(LogDamaged, match="open the log again"):
            writer.append([note("three")])
    with LogWriter.open(path) as writer:
        writer.append([note("four")])
    assert posts(sound(path))[0] == "one" and posts(sound(path))[-1] == "four"
