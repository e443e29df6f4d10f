"""What happens to a run in the trial (test_trial.py): one method a kind of fault, each on real processes, files, clocks and sockets."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from swarm import Agent
from swarm import events as ev
from swarm.errors import UserError
from swarm.log import run_is_alive
from swarm.log.errors import LogHeld
from swarm.log.lock import Lock
from swarm.rundir import LogFiles, RunFolder
from tests.runs import swarm_process as sp
from tests.runs.small_disk import fill

OTHER_UID = 65534
HOUR = 3600
FRAMES, CONNECTIONS = 1000, 20
RACES = 10
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static const volatile long long *ahead;
static int (*real)(clockid_t, struct timespec *);
__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("TRIAL_CLOCK"), O_RDONLY);
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) ahead = page;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, t);
    if (!failed && ahead && id == CLOCK_REALTIME) t->tv_sec += *ahead;
    return failed;
}
"""
"""The wall clock of a process, so many seconds ahead as the file says; nobody else's clock changes."""


class Clock:
    """The wall clock of all processes that are started from here on; `is_there` where it can be set."""

    def __init__(self, place: Path) -> None:
        self.file, library = place / "clock", place / "clock.so"
        self.set(0)
        (place / "clock.c").write_text(SHIM)
        compiler = shutil.which("cc")
        self.is_there = compiler is not None and sys.platform == "linux"
        if self.is_there:
            words = [str(compiler), "-shared", "-fPIC", "-o", str(library), str(place / "clock.c"), "-ldl"]
            subprocess.run(words, check=True)
        self.environment = {"LD_PRELOAD": str(library), "TRIAL_CLOCK": str(self.file)} if self.is_there else {}

    def set(self, ahead_seconds: int) -> None:
        with self.file.open("r+b" if self.file.exists() else "wb") as file:  # in place: processes have it mapped
            file.write(ahead_seconds.to_bytes(8, sys.byteorder, signed=True))


class Faults:
    """Those of one run, drawn by its seed; each kind comes before one comes twice."""

    def __init__(
        self, seed: int, folder: RunFolder, clock: Clock, disk: Path | None, port: int, *, has_workers: bool = True
    ) -> None:
        self._rng, self._folder, self._clock, self._disk, self._port = random.Random(seed), folder, clock, disk, port
        self._resume = resume if has_workers else start_coordinator
        kinds: Sequence[Callable[[], None]] = (
            self.kill_coordinator, self.kill_coordinator_and_tear_the_log, self.freeze_coordinator, self.send_frames, self.race_for_tasks,
            *([self.kill_worker, self.freeze_worker] if has_workers else []),
            *([self.set_the_clock] if clock.is_there else []),
            *([self.fill_the_disk, self.act_as_another_user] if disk else []),
        )  # fmt: skip
        self._kinds, self._next = kinds, list[Callable[[], None]]()
        self.counts: Counter[str] = Counter()
        self.harm: list[str] = []
        """What should not have been possible."""

    def happen(self) -> None:
        """One of them, and the run goes on."""
        if not self._next:
            self._next = self._rng.sample(self._kinds, len(self._kinds))
        kind = self._next.pop()
        self._resume(self._folder)
        try:
            kind()
        except (ProcessLookupError, NobodyThere):
            kind = self.find_nobody
        self.counts[kind.__name__.replace("_", " ")] += 1

    def find_nobody(self) -> None:
        """The process that was meant has just ended."""

    # ---- processes ---------------------------------------------------------------------------------------------------

    def kill_coordinator(self) -> None:
        os.kill(self._coordinator(), signal.SIGKILL)
        time.sleep(self._rng.uniform(0, 3))
        self._resume(self._folder)

    def kill_coordinator_and_tear_the_log(self) -> None:
        os.kill(self._coordinator(), signal.SIGKILL)
        time.sleep(self._rng.uniform(0, 1))
        self._tear()
        self._resume(self._folder)

    def kill_worker(self) -> None:
        os.kill(self._worker(), signal.SIGKILL)

    def freeze_coordinator(self) -> None:
        self._freeze(self._coordinator())

    def freeze_worker(self) -> None:
        self._freeze(self._worker())

    def _freeze(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._rng.uniform(2, 15))
        os.kill(pid, signal.SIGCONT)

    def _coordinator(self) -> int:
        try:
            return sp.coordinator_pid(self._folder)
        except AssertionError:
            raise NobodyThere from None

    def _worker(self) -> int:
        """Or the process from which they are forked."""
        if not (living := sp.trainer_processes(self._folder)):
            raise NobodyThere
        return self._rng.choice(living)

    # ---- clock, disk, log --------------------------------------------------------------------------------------------

    def set_the_clock(self) -> None:
        """An hour ahead, back or right again, under a coordinator that runs on or between two of them."""
        restarts = self._rng.random() < 0.5
        if restarts:
            os.kill(self._coordinator(), signal.SIGKILL)
        self._clock.set(self._rng.choice([-HOUR, HOUR, 0]))
        time.sleep(self._rng.uniform(0, 2))
        self._resume(self._folder)

    def fill_the_disk(self) -> None:
        assert self._disk
        ballast = fill(self._disk)
        time.sleep(self._rng.uniform(2, 8))
        ballast.unlink()

    def _tear(self) -> None:
        """Cut the end of the log, flip bits near it, or append bytes that are no entry; unless somebody writes to it meanwhile.

        Under the log's lock: a program that goes on writing into a file after it was replaced changes what is kept, and `verify` says so.
        """
        try:
            lock = Lock(self._folder.log, LogFiles(self._folder.log).lock, wait_seconds=2)
        except LogHeld:
            return
        try:
            self._folder.log.write_bytes(self._torn(bytearray(self._folder.log.read_bytes())))
        finally:
            lock.release()

    def _torn(self, data: bytearray) -> bytes:
        match self._rng.randrange(3):
            case 0:
                del data[-self._rng.randint(1, 400) :]
            case 1:
                for _ in range(20):
                    data[-self._rng.randint(1, min(4000, len(data)))] ^= 1 << self._rng.randrange(8)
                self.counts["bytes flipped"] += 20
            case _:
                data += self._rng.randbytes(self._rng.randint(1, 300))
        return bytes(data)

    # ---- others ------------------------------------------------------------------------------------------------------

    def send_frames(self) -> None:
        """Bytes that are no message, to both ports."""
        for number in range(CONNECTIONS):
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port + number % 2), 2) as made,
            ):
                made.settimeout(2)
                greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(46)  # of ZMTP 3.1, every second time
                if number % 4 < 2:
                    made.sendall(greeting)
                for _ in range(FRAMES // CONNECTIONS):
                    made.sendall(self._rng.randbytes(self._rng.randint(1, 2000)))
                    self.counts["frames"] += 1

    def race_for_tasks(self) -> None:
        """Several claim the same task at the same moment: one has it."""
        names = ("ada", "bob", "eve", "dan")
        with contextlib.ExitStack() as open_, ThreadPoolExecutor(len(names)) as threads:
            agents = [open_.enter_context(Agent(name, self._folder.path)) for name in names]
            for number in range(RACES):
                ref = f"race/{self.counts['tasks raced']}-{number}"
                with contextlib.suppress(UserError):
                    agents[0].task(ref)
                winners = [
                    name
                    for name, won in zip(names, threads.map(_claims, agents, [ref] * len(agents)), strict=True)
                    if won
                ]
                if len(winners) > 1:
                    self.harm.append(f"{ref} is held by {winners}")
        self.counts["tasks raced"] += RACES

    def act_as_another_user(self) -> None:
        """Of the folder's group: may look, and changes nothing."""
        group = self._folder.path.stat().st_gid
        for words in (
            ("status",),
            ("post", "run", "by a stranger"),
            ("stop", "--no-wait"),
            ("pause", "a"),
            ("prune", "--yes", "--keep", "0"),
        ):
            done = subprocess.run(
                ["setpriv", f"--reuid={OTHER_UID}", f"--regid={group}", "--clear-groups", sys.executable, "-m", "swarm.cli", *words],
                cwd=self._folder.path.parents[1], env=sp.environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if (done.returncode == 0) != (words[0] in {"status", "prune"}) or "Traceback" in done.stderr:
                self.harm.append(f"another user, {words}: exit {done.returncode}, {done.stdout}{done.stderr}")


class NobodyThere(Exception):
    """The process that was meant does not run now."""


def _claims(agent: Agent, ref: str) -> bool:
    try:
        token = agent.take(ref, ttl_seconds=60)
    except UserError:
        return False
    with contextlib.suppress(UserError):
        agent.finish(ref, token)
    return True


def resume(folder: RunFolder) -> None:
    """What its owner would do; a stream that met a full disk says so and is tried again."""
    if not run_is_alive(folder.log) and not is_over(folder):
        sp.swarm("resume", str(folder.path), "--detach", cwd=folder.path.parents[1], check=None)


def is_over(folder: RunFolder) -> bool:
    state = sp.state(folder)
    return state.end is not None and not any("space" in stream.failed.lower() for stream in state.streams.values())


def start_coordinator(folder: RunFolder) -> None:
    """The same for a run without workers, whose bases nobody has to look at."""
    if run_is_alive(folder.log):
        return
    detached = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    command = [sys.executable, "-P", "-m", "swarm.coordinator", str(folder.path)]
    with (folder.path / "coordinator.log").open("ab") as out:
        subprocess.run(
            [sys.executable, "-c", detached, *command], env=sp.environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True
        )  # fmt: skip
    with contextlib.suppress(AssertionError):  # on a full disk, say
        sp.wait_for(lambda: run_is_alive(folder.log), "the coordinator", 20)


def entries_of(folder: RunFolder, author: str) -> list[str]:
    """What he posted, by the first two words, as often as it stands in the log."""
    return [
        " ".join(e.event.body.split()[:2])
        for e in sp.entries(folder)
        if isinstance(e.event, ev.Post) and e.author == author
    ]
