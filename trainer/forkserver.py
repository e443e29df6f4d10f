"""python -m trainer forkserver --run RUN_FOLDER --roles prepare,train --launch NONCE

Imports what workers with these roles need, makes one by fork for each line of JSON on stdin and answers with its pid on stdout; ends
with stdin.  A worker is made as soon as its first task could begin, so that rows are prepared while models' libraries are imported.
It computes nothing, so that what a fork inherits are modules; the threads that are started by imports (of OpenBLAS and of Arrow's
allocator) know what to do about a fork.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import select
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from swarm import kinds
from swarm.errors import UserError
from swarm.event import Role
from swarm.plainfiles import open_file
from swarm.rundir import RunFolder
from trainer import resident, roles
from trainer.device import set_environment
from trainer.quiet import quieten

FOR_ROWS = (
    "trainer.roles.prepare",
    "transformers.models.auto.tokenization_auto",
    "transformers.activations",  # with which any model's configuration comes, and that with its tokenizer
    "trainer.objectives.next_token",
)
"""What the first task of a preparer would import."""
FOR_MODELS = ("transformers.models.auto.modeling_auto", "transformers.modeling_utils", "trainer.judge.answers")
"""What the first task of any other role would."""


def serve(arguments: list[str]) -> list[str]:
    """Returns in each worker, with the worker's own arguments; the server itself exits."""
    gc.disable()  # imports make cycles by the thousand and leave few: a seventh of their time went into looking for those
    options = _options(arguments)
    _call("forkserver")
    replies = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    wanted, requests = cast("list[Role]", options.roles.split(",")), _Requests()
    for imported in _imported(wanted):
        resident.note_imports()
        while request := requests.next(imported, may_wait=imported == wanted):
            if worker := _forked():
                os.write(replies, f"{worker}\n".encode())
            else:
                os.close(replies)
                return _become(request, RunFolder(options.run))
    sys.exit(0)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer forkserver", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--roles", required=True, help="comma-separated: those that any of the workers will have")
    parser.add_argument("--launch", default="", help="nonce, by which the launcher recognizes its workers")
    return parser.parse_args(arguments)


def _imported(wanted: list[Role]) -> Iterator[list[Role]]:
    """The roles for which all is imported; more of them each time."""
    set_environment()
    quieten()
    if "prepare" in wanted:
        _import(FOR_ROWS)
        yield ["prepare"]
    _import([*(f"{roles.__name__}.{role}" for role in wanted), *FOR_ROWS, *FOR_MODELS])
    with contextlib.suppress(UserError):  # the worker meets it again, and its own log says it
        for setting in kinds.ALL:
            kinds.installed(setting)
    yield wanted


def _import(names: Iterable[str]) -> None:
    with contextlib.suppress(ImportError):  # so does the worker this one
        for name in names:
            importlib.import_module(name)
    # A collection in a worker would write to the pages of all these objects, which it shares with the others.  One here would free
    # 7 MB, and is a quarter of a second in which rows wait to be prepared.
    gc.freeze()


class _Requests:
    """Lines on stdin, each answered in its turn."""

    def __init__(self) -> None:
        self._stdin = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  the process's own
        self._line = b""
        """The next one, where it has been read; not buffered, since `select` sees no buffer."""

    def next(self, imported: Collection[Role], *, may_wait: bool) -> dict[str, Any] | None:
        """The next one, if all is imported for it; None, too, at the end."""
        if not self._line and (may_wait or select.select([self._stdin], [], [], 0)[0]):
            self._line = self._stdin.readline()
        if not self._line or (request := json.loads(self._line))["role"] not in imported:
            return None
        self._line = b""
        return cast("dict[str, Any]", request)


def _forked() -> int:
    """The pid of a new process; 0 in that process.  Its parent is whoever is to learn how it ends: the launcher, not the fork server.

    The process between the two ends at once, and its child goes to the nearest ancestor that is a subreaper (prctl(2)).
    """
    reading, writing = os.pipe()
    if between := os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            pid = int(pipe.read())
        os.waitpid(between, 0)
        return pid
    if worker := os.fork():
        os.write(writing, str(worker).encode())
        os._exit(0)
    os.close(reading)
    os.close(writing)
    return 0


def _become(request: dict[str, Any], folder: RunFolder) -> list[str]:
    """The worker that was asked for; returns its arguments."""
    os.setsid()
    log = open_file(folder.workers / f"{request['name']}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    _call(request["name"])
    os.environ.update(request["environment"])
    gc.enable()
    return cast("list[str]", request["arguments"])


def _call(name: str) -> None:
    """What `ps -o comm` and `top` call this process: they all have one command line."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)
