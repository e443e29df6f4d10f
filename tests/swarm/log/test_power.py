"""The power goes: only what was synced is sure to be on the disk, everything written since may be there or not.

A recorder takes down what the writer asks of the file system.  For a cut after any step, disks are made that POSIX
allows: of a file's bytes since its last sync some writes are missing, cut, zero or there in parts, and of a folder's
names since its last sync the last few changes are missing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from swarm import files
from swarm.event import Event
from swarm.events import Post
from swarm.log import Entry, LogWriter

Sound = Callable[[Path], list[Entry]]
SECTOR = 512
STEPS = (
    "open", "write", "pwrite", "ftruncate", "truncate", "fsync", "fdatasync", "mkdir", "link", "unlink", "replace",
)  # fmt: skip


@dataclass
class File:
    """What was done to the bytes of one inode, in order, and how much of that is synced."""

    changes: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data), or (size, None) for a truncation"""
    synced: int = 0


@dataclass
class Folder:
    """What was done to the names in one folder."""

    changes: list[tuple[str, int | None]] = field(default_factory=list)
    """(name, inode), or (name, None) where it goes; a rename is both at once and stands as one pair of them"""
    renames: set[int] = field(default_factory=set)
    """Indices of changes that happen together with the next one."""
    synced: int = 0


class Recorder:
    """A disk as the calls have made it, so far; `after_step` is called whenever that has changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.after_step: Callable[[], None] = lambda: None
        self.looks_away = False
        self.files: dict[int, File] = {}
        self.folders: dict[int, Folder] = {root.stat().st_ino: Folder()}
        self.exchanges: list[list[tuple[int, int]]] = []
        """Changes of names, as (folder, index), that happen together."""

    def call(self, name: str, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.looks_away or (name == "open" and not args[1] & (os.O_CREAT | os.O_TRUNC)):
            return real(*args, **kwargs)
        answer = self.take_down(name, real, *args, **kwargs)
        self.looks_away = True
        self.after_step()
        self.looks_away = False
        return answer

    def take_down(self, name: str, called: Callable[..., Any], *given: Any, **kwargs: Any) -> Any:
        def real(*_: Any, **__: Any) -> Any:
            return called(*given, **kwargs)

        args = in_their_folders(given, kwargs)
        match name, args:
            case "open", (path, flags, *_):
                there = os.path.lexists(path)
                fd = real(*args, **kwargs)
                if not there and flags & os.O_CREAT:
                    self.named(path, node_of(fd))
                if flags & os.O_TRUNC:
                    self.file(fd).changes.append((0, None))
                return fd
            case "write", (fd, data):
                at = os.fstat(fd).st_size
                done = real(fd, data)
                self.file(fd).changes.append((at, bytes(data[:done])))
                return done
            case "pwrite", (fd, data, at):
                done = real(fd, data, at)
                self.file(fd).changes.append((at, bytes(data[:done])))
                return done
            case (("ftruncate" | "truncate"), (what, size)):
                self.file(what).changes.append((size, None))
            case (("fsync" | "fdatasync"), (fd,)):
                node = node_of(fd)
                synced = self.folders.get(node) or self.file(fd)
                synced.synced = len(synced.changes)
            case "mkdir", (path, *_):
                real(*args, **kwargs)
                self.folders[node_of(path)] = Folder()
                return self.named(path, node_of(path))
            case "link", (old, new):
                self.named(new, node_of(old))
            case "unlink", (path,) if os.path.lexists(path):
                self.named(path, None)
            case "exchange", (one, other):
                nodes = node_of(one), node_of(other) if os.path.lexists(other) else None
                if not real(one, other):
                    return False
                both = []
                for path, node in ((one, nodes[1]), (other, nodes[0])):
                    both.append((node_of(Path(path).parent), len(self.folder_of(path).changes)))
                    self.named(path, node)
                self.exchanges.append(both)
                return True
            case "replace", (old, new):
                folder = self.folder_of(old)
                folder.renames.add(len(folder.changes))
                self.named(new, node_of(old))
                self.named(old, None)
            case _:
                pass
        return real(*args, **kwargs)

    def file(self, what: int | Path) -> File:
        return self.files.setdefault(node_of(what), File())

    def folder_of(self, path: Any) -> Folder:
        return self.folders[node_of(Path(path).parent)]

    def named(self, path: Any, node: int | None) -> None:
        self.folder_of(path).changes.append((Path(path).name, node))

    # ---- after the cut -----------------------------------------------------------------------------------------------

    def disk(self, rng: random.Random, into: Path) -> None:
        """One of the disks that may be found, in the empty folder `into`."""
        kept = {node: rng.randint(folder.synced, len(folder.changes)) for node, folder in self.folders.items()}
        for node, folder in self.folders.items():
            kept[node] += kept[node] - 1 in folder.renames
        for both in self.exchanges * len(self.exchanges):  # what is in one journal's commit is there as a whole
            if any(kept[node] > index for node, index in both):
                kept.update({node: max(kept[node], index + 1) for node, index in both})
        self.fill(self.root.stat().st_ino, kept, rng, into, {})

    def fill(self, at: int, kept: dict[int, int], rng: random.Random, into: Path, made: dict[int, Path]) -> None:
        names: dict[str, int] = {}
        for name, node in self.folders[at].changes[: kept[at]]:
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node
        for name, node in names.items():
            if node in self.folders:
                (into / name).mkdir()
                self.fill(node, kept, rng, into / name, made)
            elif node in made:
                (into / name).hardlink_to(made[node])
            else:
                made[node] = into / name
                made[node].write_bytes(self.bytes_of(self.files.get(node, File()), rng))

    def bytes_of(self, file: File, rng: random.Random) -> bytes:
        data = bytearray()
        sure = rng.random()
        for index, (at, new) in enumerate(file.changes):
            if index >= file.synced and rng.random() > sure:
                new = unsure(new, rng)
                if new == b"":
                    continue
            if new is None:
                data[at:] = bytes(max(0, at - len(data)))
            else:
                data += bytes(max(0, at - len(data)))
                data[at : at + len(new)] = new
        return bytes(data)


def unsure(data: bytes | None, rng: random.Random) -> bytes | None:
    """What may be left of a write that was not synced."""
    if data is None:
        return rng.choice([b"", None])
    torn = b"".join(
        data[at : at + SECTOR] if rng.random() < 0.5 else bytes(len(data[at : at + SECTOR]))
        for at in range(0, len(data), SECTOR)
    )
    return rng.choice([b"", data[: len(data) // 2], bytes(len(data)), torn])


def in_their_folders(given: tuple[Any, ...], folders: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call; names that are meant in an open folder (`dir_fd`) as whole paths."""
    held = [folders[key] for key in ("dir_fd", "src_dir_fd", "dst_dir_fd") if folders.get(key) is not None]
    named = [Path(Path(f"/proc/self/fd/{fd}").readlink(), name) for fd, name in zip(held, given, strict=False)]
    return (*named, *given[len(named) :])


def node_of(what: int | str | Path) -> int:
    return os.fstat(what).st_ino if isinstance(what, int) else Path(what).stat().st_ino


@contextmanager
def recorded(disk: Recorder) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        real = files.exchange
        patch.setattr(files, "exchange", lambda *args, _real=real: disk.call("exchange", _real, *args))
        for name in STEPS:
            real = getattr(os, name)
            patch.setattr(os, name, lambda *args, _name=name, _real=real, **kw: disk.call(_name, _real, *args, **kw))
        yield


def note(text: str) -> tuple[str, Event]:
    return ("ada", Post(ref="s1", body=text))


def person_writes(path: Path, data: bytes) -> None:
    """As editors do that save in place, and nobody syncs it."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    os.write(fd, data)
    os.close(fd)


def story(path: Path, acknowledged: list[str]) -> None:
    """A log that grows, is typed into, saved over and rotated, by three writers."""
    for part in "abc":
        with LogWriter.open(path, secret=b"s", head_every=5, rotate_bytes=1500) as writer:
            for number in range(5):
                texts = [f"{part}{number}-{n} " + "x" * 100 * number for n in range(2)]
                writer.append([note(text) for text in texts])
                acknowledged += texts
                if (part, number) == ("b", 1):
                    person_writes(path, path.read_bytes() + b"typed at the end")
                if (part, number) == ("b", 3):
                    person_writes(path, path.read_bytes()[:200] + b"\ntyped into an old copy\n")


def posts(entries: list[Entry]) -> list[str]:
    return [entry.event.body for entry in entries if isinstance(entry.event, Post)]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_acknowledged_survives_a_power_cut_at_any_time(
    path: Path, seed: int, sound: Sound, torture: bool
) -> None:
    rng, run = random.Random(seed), path.parent / "run"
    run.mkdir()
    disk, acknowledged = Recorder(run), []
    cuts: list[tuple[Path, int]] = []

    def cut() -> None:
        for _ in range(20 if torture else 1):
            found = path.parent / f"cut{len(cuts)}"
            found.mkdir()
            disk.disk(rng, found)
            cuts.append((found / path.name, len(acknowledged)))

    disk.after_step = cut
    with recorded(disk):
        story(run / path.name, acknowledged)
    assert len(cuts) > 200
    for log, told in cuts:
        with LogWriter.open(log, secret=b"s", head_every=5, rotate_bytes=1500) as writer:
            writer.append([note("after")])
        kept = posts(sound(log))
        assert kept == [*acknowledged[:told], "after"] or kept == [*acknowledged[: told + 2], "after"], log.parent.name
