"""`python -m tests.swarm.artifacts.killed_promotion FOLDER EVERY`: promotions that are killed at one in EVERY of their steps; prints how many were.

A child is forked for each and ends itself by SIGKILL before its k-th operation on a file (audit events of Python); then the folder is
looked at, and the promotion is made again as the next coordinator does.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count, product
from pathlib import Path

from swarm import events as ev
from swarm.artifacts import publish
from swarm.log import LogWriter, verify
from swarm.rundir import RunFolder
from swarm.state import fold
from swarm.weights import adapter_sha256
from tests.swarm.artifacts.test_publish import RUN, Bench
from tests.swarm.story import SHA

STEPS = frozenset(
    {
        "open",
        "os.rename",
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.chmod",
        "os.truncate",
        "shutil.rmtree",
        "ctypes.dlsym",
    }
)

Act = Callable[[RunFolder, LogWriter], None]


def promote(folder: RunFolder, writer: LogWriter) -> None:
    """As the coordinator does."""
    state = fold(writer.log.entries())
    published = state.streams["wide"].adapter
    assert published
    wished = ev.Promote(ref="wide", path="promoted", sha256=SHA, why="best")
    with publish.promotion(folder, state, wished, RUN, "coordinator") as event:
        writer.append([("coordinator", event)])


def give_adapter(folder: RunFolder, writer: LogWriter) -> None:
    with publish.adapter(folder, fold(writer.log.entries()), "wide", RUN.streams["wide"]) as event:
        writer.append([("coordinator", event)])


def main(place: Path, every: int) -> None:
    killed = 0
    for act, had in product((give_adapter, promote), (False, True)):
        made(place / "kept", act, had=had)
        for step in count(1, every):
            folder = RunFolder(Path(shutil.copytree(place / "kept", place / "run")))
            before = whole(folder, act)
            if not dies(act, folder, step):
                break
            killed += 1
            check(folder, act, before, f"{act.__name__}, {had=}, {step=}")
            shutil.rmtree(folder.path)
        shutil.rmtree(place / "run")
        shutil.rmtree(place / "kept")
    print(killed)


def made(place: Path, act: Act, *, had: bool) -> RunFolder:
    """With a published adapter for `promote`; with another one at the place that `act` writes to where it `had` one."""
    bench = Bench(place)
    bench.train("new")
    bench.story.judged("wide")
    if act is promote:
        bench.story.say("coordinator", bench.publish())
    if had:
        bench.weights(str(target_of(bench.folder, act).relative_to(bench.folder.path)), "old")
    with LogWriter.open(bench.folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in bench.story.entries])
    return bench.folder


def target_of(folder: RunFolder, act: Act) -> Path:
    return folder.promoted if act is promote else folder.stream("wide") / "adapter"


def whole(folder: RunFolder, act: Act) -> str | None:
    target = target_of(folder, act)
    return adapter_sha256(target) if target.exists() else None


def dies(act: Act, folder: RunFolder, step: int) -> bool:
    """Whether it had so many steps, and ended itself before the last of these."""
    child = os.fork()
    if not child:
        seen = count(1)

        def hook(event: str, _: object) -> None:
            if event in STEPS and next(seen) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        with LogWriter.open(folder.log) as writer:
            sys.addaudithook(hook)
            act(folder, writer)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}, status
    return status != 0


def check(folder: RunFolder, act: Act, before: str | None, where: str) -> None:
    """At that moment the place holds the old weights or the new ones, whole, and the log no others; then it is done again."""
    with LogWriter.open(folder.log) as writer:
        stream = fold(writer.log.entries()).streams["wide"]
        assert stream.verdict
        new = stream.verdict.sha256
        recorded = records_of(writer, act, new)
        assert whole(folder, act) in ({new} if recorded else {before, new}), where
        if not recorded:
            act(folder, writer)
        assert (whole(folder, act), records_of(writer, act, new)) == (new, 1), where
    target = target_of(folder, act)
    assert recorded or not list(target.parent.glob(f".{target.name}*")), where
    assert verify(folder.log) == [], where


def records_of(writer: LogWriter, act: Act, sha256: str) -> int:
    kind = ev.Promote if act is promote else ev.Adapter
    return sum(isinstance(entry.event, kind) and entry.event.sha256 == sha256 for entry in writer.log.entries())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
