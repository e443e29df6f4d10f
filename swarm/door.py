"""The way in for whoever acts in the log under a name: through the coordinator while one runs, else under the log's lock.

Over the bus the author is the key: acting as `ada` means using ada's join file, which the run's owner may mint.
"""

from __future__ import annotations

import getpass
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from swarm.errors import UserError
from swarm.events import Event
from swarm.log import LogError, LogHeld, LogWriter, run_is_alive
from swarm.messages import Ask, Report
from swarm.rundir import RunFolder, is_name
from swarm.state import Refusal, admit, fold

REFUSED = 5
"""Exit status of a command that was refused."""


class Refused(UserError):
    """The event may not happen now."""

    status = REFUSED


def user_name() -> str:
    """Who sits at this terminal, as a name of the log."""
    try:
        name = getpass.getuser().lower()
    except (OSError, KeyError):
        name = ""
    return re.sub(r"[^a-z0-9._-]", "-", name).lstrip("-._")[:64] or "owner"


class Door:
    """Appends events under one name; a context manager."""

    def __init__(self, folder: RunFolder, name: str | None = None) -> None:
        """Raises UserError if the name is none or its keys may not be used."""
        if name is not None and not is_name(name):
            raise UserError("--as", f"{name!r} is no name", "use [a-z0-9][a-z0-9._-]*, at most 64 characters")
        self.folder = folder
        self.name = name or user_name()
        self._peer = connect(folder, name) if run_is_alive(folder.log) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._peer:
            self._peer.close(flush_seconds=0.5)

    def append(self, event: Event, *, timeout_seconds: float = 10.0) -> int:
        """The entry's seq once it is durable.  Raises Refused with the reason, UserError if nobody answers."""
        return self._through_coordinator(event, timeout_seconds) if self._peer else self._under_lock(event)

    def _through_coordinator(self, event: Event, timeout_seconds: float) -> int:
        from bus.errors import BusError
        from bus.errors import Refused as BusRefused
        from toon import decode

        assert self._peer
        where = f"{event.kind} {event.ref}"
        try:
            answer = self._peer.request(
                Ask.type, Ask(what="append", report=Report.of(event)).toon(), timeout_seconds=timeout_seconds
            )
        except BusRefused as refused:
            raise Refused(where, refused.reason, "see `swarm log`") from refused
        except (BusError, TimeoutError) as error:
            raise UserError(
                where, f"no answer from the coordinator ({error or 'timeout'})", "see `swarm status`"
            ) from error
        value = decode(answer.body)
        assert isinstance(value, dict)
        return int(value["seq"])

    def _under_lock(self, event: Event) -> int:
        """No coordinator: the same rules, checked under the same lock, by this process."""
        where = f"{event.kind} {event.ref}"
        try:
            with LogWriter.open(self.folder.log, wait_seconds=5.0) as writer:
                state = fold(writer.log.entries())
                if (known := state.repeat_of(self.name, event)) is not None:
                    return known
                admit(state, self.name, event, time.time())
                return writer.append([(self.name, event)], via="local")[-1].seq
        except Refusal as refusal:
            raise Refused(where, str(refusal), "see `swarm log`") from refusal
        except LogHeld as error:
            raise UserError(where, str(error), "try again") from error
        except LogError as error:
            raise UserError(where, str(error), "see `swarm log`") from error


def connect(folder: RunFolder, name: str | None, subscribe: tuple[str, ...] = ()) -> Any:
    """A started `bus.Peer` under the name's own key; the owner's without a name.

    Raises UserError if the keys cannot be used.
    """
    from bus.errors import BusError
    from bus.keys import Join
    from bus.peer import Peer

    try:
        return Peer(Join.load(_join_file(folder, name)), subscribe=subscribe).start()
    except BusError as error:
        raise UserError(
            folder.name, str(error), "only the run's owner, or who has a join file, can act in it"
        ) from error


def _join_file(folder: RunFolder, name: str | None) -> Path:
    from bus.keys import Members

    if name is None:
        return folder.connect
    path = folder.keys / "join" / f"{name}.json"
    return path if path.exists() else Members.open(folder.keys).invite(name, "agent")
