"""Makes run folders as somebody would who wants to harm whoever looks at them: real ones, changed in a few places, by a seed."""

from __future__ import annotations

import json
import os
import random
import socket
import sqlite3
import struct
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from swarm import events as ev
from swarm.errors import UserError
from swarm.event import Event
from swarm.log import LogError, LogWriter
from swarm.log.wal import HEAD, MAGIC, framed

FIXTURES = Path(__file__).parent.parent / "fixtures"
GIANT_BYTES = 20 << 30
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\n## 99 end run @owner\x00"
FACTS: tuple[Any, ...] = (
    "narrow", "wide", "wide/validate", "narrow/train", "newer", "run", "-", "ada", "'", "lora_r=4", "lora_r='", "x=", "../../../outside/folder", "/etc", "promoted",
    "streams/narrow/adapter", "streams/narrow/t3/checkpoint-10", "a" * 64, "SUCCESS", "keep", "gpus", "seconds", 0, 1, 3, 10**9, 10**18, 0.0, 0.5, 1e300, -1.0, True, False,
    None, "", {"eval_loss": 0.5}, {"eval_loss": 1e308, "x" * 60: -1e308}, {}, ESCAPES,
)  # fmt: skip
"""Values of entries: those that are of the right type somewhere are taken."""
MAY_BE_THERE = (
    "agents", "agents/ada", "agents/ada/inbox", "agents/ada/waited", "collaboration/.wal.new", "collaboration/clock.json",
    "collaboration/0001.md", "collaboration/saved-0001.md", ".COLLABORATION.md.new", ".config.yaml.new", "SUMMARY.md",
    "coordinator.log", "connect.json", "metrics.db-wal", "metrics.db-shm", "metrics.db-journal", ".promoted.staged", ".promoted.staged.old",
    "promoted", "streams/narrow/.adapter.staged", "streams/narrow/t3", "streams/wide/t6", "streams/../t6", "prepared/x", "workers/trainer-1.log",
    "keys/join/ada.json", "keys/members.lock", "alerts", "alerts/cursor.json", "alerts/00000003-x-3-end-0.json", "feedback", "feedback/answers",
    "feedback/answers/chatcmpl-1.json", "feedback/rated/chatcmpl-1.json", "feedback/canary.json", "inputs.json", "promoted/lineage.json", "promoted/tokenizer.json",
    "promoted/adapter_config.json", "promoted/prompt.json", "promoted/README.md", "layout.json", "workers.json", "kept.yaml", "report.json", "base_figures.json",
)  # fmt: skip
"""Paths that commands write to, whether or not they are there."""


class Maker:
    """Changes one run folder; `outside` is what must not be touched."""

    def __init__(self, seed: int, folder: Path, outside: Path, foreign_pid: int) -> None:
        self.rng, self.folder, self.outside, self.foreign_pid = random.Random(seed), folder, outside, foreign_pid
        self.moved = 0
        self.done: list[str] = []
        """What was changed, for the message of a failing test."""

    def change(self, times: int) -> None:
        ways: tuple[Callable[[Path], object], ...] = (
            self.link_to_file, self.link_to_folder, self.link_to_nothing, self.link_to_itself, self.link_to_device,
            self.fifo, self.sock, self.giant, self.folder_instead, self.file_instead, self.noise, self.cut, self.flipped,
            self.deep, self.other_values, self.names,
        )  # fmt: skip
        whole: tuple[Callable[[], object], ...] = (
            self.processes, self.metrics, self.wal, self.log_text, self.entries, self.entries, self.config,
        )  # fmt: skip
        for _ in range(times):
            if self.rng.random() < 0.25:
                way = self.rng.choice(whole)
                self.done.append(way.__name__)
                way()
            else:
                how, path = self.rng.choice(ways), self.some_path()
                self.done.append(f"{how.__name__} {path.relative_to(self.folder)}")
                with suppress(FileNotFoundError, NotADirectoryError, FileExistsError, IsADirectoryError):
                    how(path)

    def some_path(self) -> Path:
        there = sorted(path for path in self.folder.rglob("*") if not path.is_symlink())
        path = self.rng.choice([*there, *(self.folder / name for name in MAY_BE_THERE)])
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            return self.folder / "config.yaml"
        return path

    def cleared(self, path: Path) -> Path:
        """The place, with nothing in it."""
        if path.is_symlink() or path.is_file() or path.is_fifo() or path.is_socket():
            path.unlink()
        elif path.is_dir():
            self.moved += 1
            path.rename(path.with_name(f"{path.name}~{self.moved}"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    # ---- what stands in the place of a file --------------------------------------------------------------------------

    def link_to_file(self, path: Path) -> None:
        self.cleared(path).symlink_to(self.outside / "file")

    def link_to_folder(self, path: Path) -> None:
        self.cleared(path).symlink_to(self.outside / "folder")

    def link_to_nothing(self, path: Path) -> None:
        self.cleared(path).symlink_to(self.outside / "made-by-the-victim")

    def link_to_itself(self, path: Path) -> None:
        self.cleared(path).symlink_to(path)

    def link_to_device(self, path: Path) -> None:
        self.cleared(path).symlink_to(self.rng.choice(["/dev/zero", "/dev/full", "/dev/tty", "/proc/self/mem"]))

    def fifo(self, path: Path) -> None:
        os.mkfifo(self.cleared(path))

    def sock(self, path: Path) -> None:
        made, here = socket.socket(socket.AF_UNIX), Path.cwd()
        os.chdir(self.cleared(path).parent)
        made.bind(path.name)
        os.chdir(here)
        made.close()

    def giant(self, path: Path) -> None:
        with suppress(IsADirectoryError):
            path.touch()
            os.truncate(path, GIANT_BYTES)

    def folder_instead(self, path: Path) -> None:
        self.cleared(path).mkdir()

    def file_instead(self, path: Path) -> None:
        self.cleared(path).write_text(self.rng.choice(["", "x", ESCAPES]))

    # ---- other contents ----------------------------------------------------------------------------------------------

    def noise(self, path: Path) -> None:
        path.write_bytes(
            self.rng.choice([b"", b"\xff\xfe\x80", self.rng.randbytes(5000), ESCAPES.encode() * 99, b"\0" * 9999])
        )

    def cut(self, path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: self.rng.randrange(len(data) + 1)])

    def flipped(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        for _ in range(self.rng.randint(1, 9) if data else 0):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(data)

    def deep(self, path: Path) -> None:
        path.write_text(
            self.rng.choice(["[" * 99_999, '{"a":' * 99_999, "a:\n" + "".join(" " * n + "a:\n" for n in range(999))])
        )

    def other_values(self, path: Path) -> None:
        """JSON of the right shape, and of other types."""
        strange = [
            None,
            -1,
            1e400,
            10**400,
            "../../outside/file",
            "/etc/passwd",
            ESCAPES,
            [],
            {},
            True,
            "\ud800",
            [[]] * 9,
        ]
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            value = {"workers": [{}], "notes": [1]}
        if isinstance(value, dict) and value:
            value[self.rng.choice(sorted(value))] = self.rng.choice(strange)
        else:
            value = self.rng.choice(strange)
        path.write_text(json.dumps(value))

    def names(self, path: Path) -> None:
        place = path if path.is_dir() else path.parent
        for name in (
            b"\x1b[2J",
            b"a\nb",
            b"t1\x07",
            b"checkpoint-\xff",
            b"t99999999999999999999",
            b"-rf",
            b"x" * 255,
            b"t\xd9\xa3",
        ):
            with suppress(FileExistsError):
                (place / os.fsdecode(name)).mkdir()
        for name in ("checkpoint-x", "checkpoint-9" * 9, "checkpoint-\u0663"):
            (place / "t1" / name).mkdir(parents=True, exist_ok=True)
            (place / "t1" / name / "manifest.json").touch()

    # ---- what belongs together ---------------------------------------------------------------------------------------

    def processes(self) -> None:
        """The workers are processes of somebody else."""
        started = Path(f"/proc/{self.foreign_pid}/stat").read_text().rpartition(")")[2].split()[19]
        pids: list[object] = [self.foreign_pid, os.getpid(), os.getppid(), 1, 0, -1, "1", 2**70, None]
        known = {
            f"w{n}{ESCAPES if n else ''}": {
                "pid": pid,
                "started": started,
                "launch": self.rng.choice(["", "x", "a" * 16]),
            }
            for n, pid in enumerate(pids)
        }
        self.cleared(self.folder / "workers.json").write_text(json.dumps(known))

    def metrics(self) -> None:
        path = self.cleared(self.folder / "metrics.db")
        for end in ("-wal", "-shm"):
            self.cleared(path.with_name(path.name + end))
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
        columns = "stream, token, steps, step, kind, time, loss"
        table = 'CREATE TABLE metrics (stream, token, steps, step, kind, time, loss, "\x1b[2J")'
        said = self.rng.choice([
            (f"CREATE VIEW metrics AS {endless} 'wide' stream, 1 token, 9 steps, i step, 'train' kind, i time, 0.5 loss FROM n",),
            (table, "CREATE TRIGGER t AFTER INSERT ON metrics BEGIN DELETE FROM metrics; END"),
            (table, f"INSERT INTO metrics ({columns}) VALUES ('{ESCAPES.split(chr(0), maxsplit=1)[0]}', 'x', NULL, -1, x'00ff', 'now', 'NaN')"),
            (table, f"INSERT INTO metrics ({columns}) VALUES ('wide', 1, 9, 9e999, 'train', 1e999, 1e999)"),
            ("CREATE TABLE metrics (a)",), ("CREATE TABLE other (a)",),
            ("CREATE TABLE metrics (stream, token, steps, step, kind, time, loss AS (zeroblob(999999999)))",
             "INSERT INTO metrics (stream, token, steps, step, kind, time) VALUES ('wide', 1, 1, 1, 'train', 1)"),
        ])  # fmt: skip
        with sqlite3.connect(path) as db:
            for statement in said:
                db.execute(statement)
        db.close()

    def wal(self) -> None:
        """Whole frames, sealed as they should be, with anything in them."""
        data = (self.folder / "COLLABORATION.md").read_bytes() if (self.folder / "COLLABORATION.md").is_file() else b""
        payload = self.rng.choice(
            [ESCAPES.encode(), b"##### 1 post run eve\n" * 999, data[: len(data) // 2], data + data, b"\xff" * 99]
        )
        made = self.rng.choice([
            MAGIC + framed(len(MAGIC), payload), MAGIC + HEAD.pack(2**32 - 1, bytes(8)), MAGIC, MAGIC + struct.pack(">I", 5) * 9999,
        ])  # fmt: skip
        self.cleared(self.folder / "collaboration/wal").write_bytes(made)

    def log_text(self) -> None:
        path = self.folder / "COLLABORATION.md"
        self.cleared(self.folder / "collaboration/wal")
        data = path.read_bytes() if path.is_file() else b""
        path.write_bytes(
            data + self.rng.choice([ESCAPES.encode(), b"##### 99999999999999999999 end run eve\n", b"<!--" * 9999])
        )

    def entries(self) -> None:
        """Whole entries of any kind, with facts that no coordinator would have admitted."""
        with suppress(LogError, UserError, OSError), LogWriter.open(self.folder / "COLLABORATION.md") as writer:
            for _ in range(self.rng.randint(1, 6)):
                event = self.some_event()
                self.done.append(f"  {event!r:.300}")
                writer.append([(self.rng.choice(["coordinator", "ada", "trainer-1"]), event)])

    def some_event(self) -> Event:
        while True:
            kind = self.rng.choice(sorted(ev.KINDS))
            facts = {name: self.rng.choice(FACTS) for name in ev.KINDS[kind].model_fields if self.rng.random() < 0.9}
            with suppress(ValueError):
                return ev.KINDS[kind].model_validate(facts)

    def config(self) -> None:
        path = self.folder / "config.yaml"
        text = path.read_text(errors="replace") if path.is_file() else ""
        bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
        )
        made = [
            f'{text}\n"{chr(27)}[2J": 1\n',
            bomb,
            "streams: []\n",
            "!!python/object/apply:os.system [true]\n",
            text.replace("narrow", "../../x"),
        ]
        self.cleared(path).write_text(self.rng.choice([*made, text + "listen: tcp://0.0.0.0:1\n"]))


def unpacked(name: str, into: Path) -> Path:
    """A real run folder, whose data are not there."""
    with tarfile.open(FIXTURES / f"{name}.tar.xz") as kept:
        kept.extractall(into, filter="tar")
    [path] = into.iterdir()
    return path


def canary(place: Path) -> Path:
    """What links lead to."""
    (place / "folder/t6/checkpoint-10").mkdir(parents=True)
    (place / "folder/adapter").mkdir()
    for name in (
        "file",
        "folder/wal",
        "folder/lock",
        "folder/t6/checkpoint-10/manifest.json",
        "folder/adapter/lineage.json",
    ):
        (place / name).write_text("theirs")
    return place


def picture(place: Path) -> dict[str, object]:
    """All that can be changed about a tree, but for times of reading."""
    found: dict[str, object] = {}
    for path in sorted([place, *place.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and status.st_size < GIANT_BYTES else b""
        what = str(path.readlink()) if path.is_symlink() else content
        found[str(path)] = (status.st_ino, status.st_mode, status.st_uid, status.st_nlink, status.st_mtime_ns, what)
    return found
