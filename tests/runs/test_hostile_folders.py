"""Every command on run folders that somebody has prepared: no hang, no traceback, a documented exit status, nothing outside is changed.

The command lines are made from the typer app (every_command.py).  Those that are quick run in this process, as `swarm` runs them (`main`), with a
time limit that also ends a wait inside the kernel.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import cli
from swarm.cli import screen
from tests.runs import swarm_process as sp
from tests.runs.every_command import command_lines, is_quick
from tests.runs.hostile_folders import Maker, canary, picture, unpacked

TORTURE = bool(os.environ.get("TORTURE"))
CASES = int(os.environ.get("HOSTILE_CASES", "150" if TORTURE else "10"))
APART = int(os.environ.get("HOSTILE_APART", "3"))
LIMIT_SECONDS = 20.0
"""Far more than any of these commands takes on a busy machine."""
APART_SECONDS = 180.0
"""The same for a command that has a process of its own, and mostly loads torch there; one that goes on serving is ended."""
SERVES = {"serve", "watch", "mcp", "chat"}
INSPECTION_SECONDS = 90.0
"""`resume` checks the config, and with it the bases: the first time that takes a process that imports torch."""
DOCUMENTED = {0, 1, 2, 5, 6, 130}


class Hung(BaseException):
    """A command did not come back in time."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    def hung(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def told(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit status and all output of `swarm WORDS`; a traceback is part of the output and has status -1."""
    out, status = io.StringIO(), -1
    monkeypatch.setattr(sys, "argv", ["swarm", *words])
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            with limited(LIMIT_SECONDS if words[0] != "resume" else INSPECTION_SECONDS):
                status = int(cli._run())
        except Hung:
            out.write("\nHUNG")
        except Exception as error:
            try:
                status = cli._report(error)
            except Exception:
                traceback.print_exc(file=out)
    return status, out.getvalue()


def faults_of(status: int, out: str) -> Iterator[str]:
    if "HUNG" in out:
        yield "no end"
    if status not in DOCUMENTED:
        yield f"exit status {status}"
    if "Traceback" in out or "Exception in thread" in out:
        yield "traceback"
    if strange := set(out) & set("\x00\x07\x1b\x9b\r"):
        yield f"control characters {strange}"


def told_apart(words: tuple[str, ...], place: Path) -> tuple[int, str]:
    """The same from a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "swarm.cli", *words], cwd=place, env=sp.environment(), text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = process.communicate(timeout=APART_SECONDS if words[0] not in SERVES else LIMIT_SECONDS)
        return process.returncode, out
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        return (0, out) if words[0] in SERVES else (-1, f"{out}\nHUNG")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [unpacked(name, tmp_path_factory.mktemp(name)) for name in ("finished", "halfway")]


@pytest.fixture(scope="module")
def stranger() -> Iterator[int]:
    """A process of somebody else, which leads its group and looks a little like a worker."""
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(9999)", "-m", "trainer", "--launch", "x"],
        start_new_session=True,
    )
    yield process.pid
    assert process.poll() is None, "it was signalled"
    process.kill()
    process.wait()


def folder_of(seed: int, tmp_path: Path, bases: list[Path], stranger: int) -> tuple[Maker, Path]:
    rng = random.Random(seed)
    base = rng.choice(bases)
    outside, folder = canary(tmp_path / "outside"), tmp_path / "runs" / base.name
    shutil.copytree(base, folder, symlinks=True)
    maker = Maker(seed, folder, outside, stranger)
    maker.change(rng.randint(1, 4))
    return maker, outside


@pytest.mark.slow
@pytest.mark.timeout(7200 if TORTURE else 300)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # commands end in the middle of what they read
def test_no_command_comes_to_harm_in_a_hostile_folder(
    tmp_path: Path, bases: list[Path], stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screen, "is_terminal", lambda: True)  # what a person's terminal would be sent
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    harm: list[str] = []
    first = int(os.environ.get("HOSTILE_SEED", "0"))
    for seed in range(first, first + CASES):
        place = tmp_path / str(seed)
        maker, outside = folder_of(seed, place, bases, stranger)
        monkeypatch.chdir(place)
        before = picture(outside)
        for command in chosen(random.Random(seed), maker.folder):
            status, out = told(command, monkeypatch) if is_quick(command[0]) else told_apart(command, place)
            after = picture(outside)
            if wrong := [*faults_of(status, out), *(["something outside was changed"] if after != before else [])]:
                harm.append(f"seed {seed}, {' '.join(command)}, after {maker.done}: {', '.join(wrong)}\n{out[-1500:]}")
            before = after
        list(sp.end_everything(place))
        shutil.rmtree(place)
    assert not harm, f"{len(harm)} cases\n\n" + "\n\n".join(harm[:20])


def chosen(rng: random.Random, folder: Path) -> list[tuple[str, ...]]:
    """Twelve command lines of those that are quick, and of those that load torch one now and then; with TORTURE all of the first, some of the others."""
    apart = [line for name, lines in command_lines(folder).items() if not is_quick(name) for line in lines]
    if TORTURE:
        return [*quick_lines(folder), *rng.sample(apart, APART)]
    return [*rng.sample(quick_lines(folder), 12), *rng.sample(apart, int(rng.random() < 0.2))]


def quick_lines(folder: Path) -> list[tuple[str, ...]]:
    return [line for name, lines in command_lines(folder).items() if is_quick(name) for line in lines]


def test_nothing_in_a_folder_of_another_user_is_changed(
    tmp_path: Path, bases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid():
        pytest.skip("only the superuser can give a folder away")
    for base in bases:
        folder = tmp_path / "runs" / base.name
        shutil.copytree(base, folder)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 12345, 12345)
        monkeypatch.chdir(tmp_path)
        before = picture(folder)
        for command in quick_lines(folder):
            status, out = told(command, monkeypatch)
            assert status in DOCUMENTED and "Traceback" not in out, out
            assert picture(folder) == before, f"{command}: {out}"
            if command[0] in {"post", "stop", "pause"} and "--as" not in command:  # its keys are refused first
                assert status == 2 and "belongs to another user (uid 12345)" in out, out
