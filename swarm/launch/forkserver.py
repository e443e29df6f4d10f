"""The fork server of a run, as the coordinator uses it: workers on CPUs are forked from one process that has imported what they need.

So a run imports torch and its libraries once, a worker starts in milliseconds, and all share the memory of the imports.  The server
(`trainer.forkserver`) is spawned: nothing of the coordinator's is inherited but two pipes.  Workers on a GPU are not forked, since
CUDA cannot be used in a process that is forked after it was initialised; nor are those of macOS, whose frameworks do not bear it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import secrets
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from swarm.event import Role
from swarm.launch.child import FORK_SERVER, Child, process_started
from swarm.launch.layout import WorkerSpec
from swarm.plainfiles import make_folder, opener
from swarm.rundir import RunFolder
from swarm.spawning import module_command

SET_CHILD_SUBREAPER = 36
"""Of prctl(2): processes whose parent ends become this process's children, so that it learns how they ended."""


def can_fork(spec: WorkerSpec) -> bool:
    return sys.platform == "linux" and spec.device == "cpu"


class Forked:
    """A worker that the server was asked for."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkServer:
    """Started when it is first asked for a worker, or before; ends with the coordinator."""

    def __init__(self, folder: RunFolder, roles: Iterable[Role]) -> None:
        """`roles`: those of all workers that will be asked for."""
        self._folder, self._roles = folder, tuple(dict.fromkeys(roles))
        self.on_news: Callable[[Child], None] = lambda _: None
        """Called with a worker that was made, or cannot be."""
        self._process: subprocess.Popen[bytes] | None = None
        self._launch = ""
        self._asked: deque[tuple[Child, Forked]] = deque()
        """Not made yet, in the order of their requests."""
        self._heard = b""

    def start(self, spec: WorkerSpec, arguments: list[str], environment: Mapping[str, str]) -> Child:
        """A worker that will be made as soon as what its first role needs is imported.  Raises OSError."""
        server, forked = self._heard_server(environment), Forked()
        child = Child(spec, launch=self._launch, process=forked)
        self._asked.append((child, forked))
        request = {"name": spec.name, "role": spec.roles[0], "arguments": arguments, "environment": dict(environment)}
        assert server.stdin
        with contextlib.suppress(BrokenPipeError):  # it has ended: the end of its replies says so
            server.stdin.write(f"{json.dumps(request)}\n".encode())
        return child

    def begin(self, environment: Mapping[str, str]) -> None:
        """Starts the server, which imports while its caller goes on.  Raises OSError."""
        make_folder(self._folder.workers)
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
        self._launch, self._heard = secrets.token_hex(8), b""
        command = module_command(
            "trainer", "forkserver", "--run", str(self._folder.path), "--roles", ",".join(self._roles),
            "--launch", self._launch,
        )  # fmt: skip
        with open(self._folder.workers / f"{FORK_SERVER}.log", "ab", opener=opener) as log:
            self._process = subprocess.Popen(
                command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                start_new_session=True, env={**os.environ, **environment},
            )  # fmt: skip

    def _heard_server(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        if self._process is None:
            self.begin(environment)
        assert self._process
        asyncio.get_running_loop().add_reader(self._replies, self._hear)
        return self._process

    @property
    def _replies(self) -> int:
        assert self._process and self._process.stdout
        return self._process.stdout.fileno()

    def _hear(self) -> None:
        """The pids of the workers come as lines, in the order of the requests."""
        heard = os.read(self._replies, 4096)
        if not heard:
            self._ended()
            return
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            child, forked = self._asked.popleft()
            child.pid = forked.pid = int(line)
            child.started = process_started(child.pid) or ""
            self.on_news(child)

    def end(self) -> None:
        """Workers that it has made are left as they are; those that it has not made end with it."""
        if self._process:
            self._process.kill()
        while self._process:
            self._hear()

    def _ended(self) -> None:
        """By an error, a signal or `end`: the next request starts another."""
        assert self._process
        asyncio.get_running_loop().remove_reader(self._replies)
        with self._process as ended:  # closes its pipes
            ended.wait()
        self._process, failed = None, list(self._asked)
        self._asked.clear()
        for child, forked in failed:
            forked.returncode = ended.returncode
            self.on_news(child)
