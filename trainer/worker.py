"""A worker process: says hello, imports what its roles need, then does the tasks that it is given until it is told to leave.

It may hold several leases at once; its heartbeats keep all of them.  Tasks of a role that share a base are done together, all others
one after another.  The main thread works, a second one listens (assignments, orders, the coordinator's silence), the bus has its own for sockets and heartbeats.  A worker
decides nothing about the run: it does what it is assigned and reports what came of it.  Without a coordinator it goes on with its
tasks; what it has to report waits in its spool on disk, for the next coordinator or the next process of its name.
"""

from __future__ import annotations

import gc
import os
import queue
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from bus.envelope import Envelope
from bus.keys import Join
from bus.peer import Peer
from swarm.errors import UserError
from swarm.event import DONE_BY, JUDGING, Role
from swarm.events import Drop
from swarm.files import write_whole
from swarm.messages import Assign, Heartbeat, Hello, Message, Order, Quit, Ready
from swarm.plainfiles import NO_SPACE, make_folder
from swarm.policy.batching import SharedKey, shared_key
from swarm.rundir import RunFolder
from trainer import device, resident, roles
from trainer.drops import drop_for
from trainer.errors import Elsewhere
from trainer.lease import Lease
from trainer.place import Place
from trainer.quiet import quieten
from trainer.work import Work

LISTEN_SECONDS, LEAVING_SECONDS = 0.5, 0.05
"""Between two looks at whether it is over; the second one's are of a worker that leaves."""
ORPHAN_GRACE_SECONDS = 20.0
"""An orphan that was told to leave and reaches no boundary within this is ended."""
FLUSH_SECONDS = 5.0
LATER_SECONDS = 20.0
"""Imports for judging wait so long: at a run's start the cores belong to preparing, and to the imports of trainers."""
LOW_PRIORITY = 5
OTHER_VERSION = "the coordinator is of another version than this worker"


@dataclass(frozen=True)
class Post:
    """How a worker was started."""

    join: Path
    run_folder: Path
    roles: tuple[Role, ...]
    device: str = "cpu"
    threads: int = 1
    orphan_seconds: float = 30.0

    @property
    def command(self) -> str:
        """The command line for `workers/NAME.command`; its paths are relative to the run folder, so that it names no place of this machine."""
        join = self.join.resolve()
        seen = join.relative_to(self.run_folder) if join.is_relative_to(self.run_folder) else join.name
        return (
            f"python -m trainer --join {shlex.quote(str(seen))} --run . --roles {','.join(self.roles)}"
            f" --device {self.device} --threads {self.threads}"
        )


class Worker:
    def __init__(self, post: Post) -> None:
        self.post = post
        self.started = time.time()
        self._ready = False
        self._leaving = ""
        self._leaving_since = 0.0
        self._gone = threading.Event()
        self._held: tuple[Work, ...] = ()
        """All leases, in the order in which they came; replaced, never changed, so that any thread may read it."""
        self._changing = threading.Lock()
        """Held while `_held` is replaced."""
        self._importing = threading.Lock()
        self._announcing = threading.Lock()
        """Held while what is said of being ready is made and sent: a hello that says `importing` is not sent after Ready."""
        # SimpleQueue: its put is safe inside a signal handler.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Something to look at for the thread that works."""
        join = Join.load(post.join)
        workers = RunFolder(post.run_folder).workers
        make_folder(workers)
        try:
            write_whole(workers / f"{join.name}.command", f"{post.command}\n")
        except OSError as error:  # for people; on a full disk the tasks say what is wrong
            if error.errno not in NO_SPACE:
                raise
        spool = workers / f"{join.name}.spool"
        self._peer = Peer(join, spool=spool, heartbeat=lambda: self._now().toon())
        self._greeted = ""
        """The hub that has our hello."""

    def serve(self) -> int:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal's Ctrl-C reaches the whole group; the coordinator orders
        signal.signal(signal.SIGTERM, lambda *_: self._leave("the worker was asked to leave"))
        self._peer.start()
        listening = threading.Thread(target=self._listen, name="listen", daemon=True)
        listening.start()
        place = self._import()
        while not self._leaving:
            if work := next((work for work in self._held if not work.lease.paused), None):
                self._work(work, place)
            else:
                self._wake.get()
        print(f"trainer: leaving: {self._leaving}", file=sys.stderr)
        for work in self._held:
            self._give_back(work)
        self._gone.set()
        listening.join()
        # A dead coordinator takes nothing: what is left stays in the spool.
        self._peer.close(flush_seconds=0.5 if self._orphaned else FLUSH_SECONDS)
        return 0

    def _import(self) -> Place:
        quieten()
        began = time.monotonic()
        judging = [role for role in self.post.roles if role in JUDGING and role != self.post.roles[0]]
        gc.disable()  # as in the fork server
        for role in self.post.roles:
            if role not in judging:
                roles.load(role)
        gc.enable()
        device.refuse_missing_gpu(self.post.device)
        floor_bytes = resident.floor_bytes()
        self._report_ready(round(time.monotonic() - began, 3), floor_bytes)
        threading.Thread(target=self._import_later, args=(judging,), name="import", daemon=True).start()
        return Place(self.post.run_folder, self.post.device, self.post.threads, floor_bytes)

    def _report_ready(self, import_seconds: float, resident_bytes: int) -> None:
        name = device.gpu_name(self.post.device)
        with self._announcing:
            self._ready = True
            ready = Ready(import_seconds=import_seconds, resident_bytes=resident_bytes, device_name=name)
            self._send(ready, True)

    def _import_later(self, judging: Sequence[Role]) -> None:
        """What judging needs, while the machine has nothing better to do; a task that comes earlier imports it at once."""
        if not judging or self._gone.wait(LATER_SECONDS):
            return
        if sys.platform == "linux":  # of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)
        for role in judging:
            if not self._leaving:
                self._role(role)

    def _role(self, role: Role) -> roles.RoleModule:
        """One import at a time: some libraries' modules are half made for a second thread."""
        with self._importing:
            return roles.load(role)

    # ---- one task ----

    def _work(self, work: Work, place: Place) -> None:
        if (key := self._key(work)) is not None:
            role = cast("roles.SharedRole", self._role(work.piece.role))
            role.together(_Company(self, key), place)
        elif work.lease.begin():  # else it was given back a moment ago
            self.ended(work, self._error_of(work, place))
        device.free_memory()

    def _key(self, work: Work) -> SharedKey | None:
        """What tasks that are done with it have in common; None: it is done by itself."""
        piece = work.piece
        is_ours = DONE_BY.get(piece.role, piece.role) in self.post.roles
        return shared_key(piece.role, piece.settings) if is_ours and not work.apart else None

    def arrived(self, key: SharedKey, at_most: int | None) -> list[Work]:
        """Tasks that may join others of this key, begun."""
        found: list[Work] = []
        for work in self._held:
            if len(found) != at_most and self._key(work) == key and not work.lease.paused and work.lease.begin():
                found.append(work)
        return found

    def wait(self) -> None:
        self._wake.get()

    def ended(self, work: Work, error: Exception | None) -> None:
        """The last of it: reports what ended it where the role has not, and lets go."""
        lease = work.lease
        lease.flush_metrics()
        if isinstance(error, Elsewhere):
            work.set_apart(str(error))
            lease.put_back()
            return
        if error is not None and (drop := drop_for(work.piece, error)):
            lease.report(drop)
        self._let_go(work)

    def _let_go(self, work: Work) -> None:
        """It has been reported on for the last time."""
        with self._changing:
            self._held = tuple(other for other in self._held if other is not work)

    def _give_back(self, work: Work) -> None:
        """One that nobody has begun and that is not to be done any more."""
        if work.lease.withdraw():
            work.lease.report(Drop(ref=work.piece.ref, tok=work.piece.token, why=work.lease.why, failed=False))
            self._let_go(work)

    def _error_of(self, work: Work, place: Place) -> Exception | None:
        """Run the role; None when it has reported all there is to say."""
        piece, lease = work.piece, work.lease
        try:
            lease.check()
            if DONE_BY.get(piece.role, piece.role) not in self.post.roles:
                raise UserError(
                    piece.ref, f"this worker has no role {piece.role}", f"its roles are {', '.join(self.post.roles)}"
                )
            if work.apart:
                from trainer.roles import train  # heavy, and loaded already

                train.apart(work, place)
            else:
                self._role(piece.role).run(piece, lease, place)
        except Exception as error:  # a task's failure is the stream's, not the worker's: the worker serves on
            return error
        return None

    # ---- the listening thread ----

    def _listen(self) -> None:
        self._peer.wait_connected(FLUSH_SECONDS)  # the first hello goes out at once
        self._greet()
        while not self._gone.wait(0.0):
            if (envelope := self._peer.receive(LEAVING_SECONDS if self._leaving else LISTEN_SECONDS)) is not None:
                self._take(envelope)
            self._greet()
            if self._orphaned and not self._leaving and self._now().state != "working":
                self._leave(f"the coordinator was silent for {self.post.orphan_seconds:g} s")
            if self._orphaned and self._leaving and time.monotonic() - self._leaving_since > ORPHAN_GRACE_SECONDS:
                print("trainer: no step boundary came; ended without a checkpoint", file=sys.stderr, flush=True)
                os._exit(3)

    def _greet(self) -> None:
        """Every new coordinator gets a hello after all reports; the leases are listed before it is sent, so that their ends come later."""
        if (hub := self._peer.hub) != self._greeted:
            self._greeted = hub
            with self._announcing:
                self._send(self._hello(), True)

    @property
    def _orphaned(self) -> bool:
        return self._peer.silent_seconds > self.post.orphan_seconds

    def _take(self, envelope: Envelope) -> None:
        try:
            match envelope.type:
                case Assign.type:
                    self._accept(Assign.read(envelope.body))
                case Order.type:
                    self._obey(Order.read(envelope.body))
                case Quit.type:
                    self._leave(Quit.read(envelope.body).why or "the coordinator said so")
                case _:
                    pass  # published entries and figures are for watchers
        except ValueError as error:
            print(f"trainer: cannot read a message of type {envelope.type}: {error}", file=sys.stderr)
            self._make_room(envelope)

    def _make_room(self, envelope: Envelope) -> None:
        """A coordinator of another version adopted this process: it leaves, so that one of that version is started."""
        if envelope.type == Assign.type:
            for ref, token in Assign.leases(envelope.body):
                drop = Drop(ref=ref, tok=token, why=OTHER_VERSION, failed=False)
                Lease(ref, token, self._send).report(drop)
        self._leave(OTHER_VERSION)

    def _accept(self, assign: Assign) -> None:
        works = [Work(piece, Lease(piece.ref, piece.token, self._send)) for piece in assign.pieces]
        with self._changing:
            self._held = (*self._held, *works)
        for work in works if self._leaving else ():
            work.lease.stop(self._leaving)
        self._wake.put(None)

    def _obey(self, order: Order) -> None:
        for work in self._held:
            lease = work.lease
            if lease.token == order.token or (order.what == "hand" and lease.ref == order.ref):
                lease.take(order)
                if lease.revoked or lease.stopped:
                    self._give_back(work)
                self._wake.put(None)

    def _leave(self, why: str) -> None:
        self._leaving, self._leaving_since = self._leaving or why, time.monotonic()
        for work in self._held:
            work.lease.stop(why)
        self._wake.put(None)

    # ---- what it sends ----

    def _send(self, message: Message, fact: bool) -> None:
        self._peer.send(message.type, message.toon(), control=fact)

    def _hello(self) -> Hello:
        post, now = self.post, self._now()
        return Hello(
            roles=list(post.roles), pid=os.getpid(), started=self.started, host=socket.gethostname(), device=post.device,
            threads=post.threads, state=now.state, holds=now.holds,
        )  # fmt: skip

    def _now(self) -> Heartbeat:
        holds = [work.lease.held() for work in self._held]
        busy = any(held.state != "paused" for held in holds)
        state: Literal["importing", "idle", "working"] = "working" if busy else "idle" if self._ready else "importing"
        return Heartbeat(state=state, holds=holds, memory_bytes=resident.resident_bytes())


class _Company:
    """The tasks of a worker that share one base."""

    def __init__(self, worker: Worker, key: SharedKey) -> None:
        self._worker, self._key = worker, key

    def arrived(self, at_most: int | None = None) -> list[Work]:
        return self._worker.arrived(self._key, at_most)

    def ended(self, work: Work, error: Exception | None) -> None:
        self._worker.ended(work, error)

    def wait(self) -> None:
        self._worker.wait()
