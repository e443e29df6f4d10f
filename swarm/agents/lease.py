"""A lease held by an agent's code: renewed in the background, lost by refusal or timeout, settled once.

Python cannot interrupt the holder's code: it reads `lost` or calls `check()`, and the fencing token refuses late results.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from swarm import events as ev
from swarm.access.checked import checked
from swarm.errors import Refused, UserError
from swarm.event import Event

SAFE_SHARE = 2 / 3
"""Of the time to live: a holder that could not renew for this long stops by itself, before the lease expires for others."""


class LeaseLost(Refused):
    """The lease expired or was transferred; results under it must not be published."""


class Lease:
    """One task, held.  As a context manager: settled at the end, as done, or as dropped when an exception leaves it."""

    def __init__(
        self, append: Callable[[Event], int], ref: str, token: int, ttl_seconds: float, left_seconds: float
    ) -> None:
        self.ref, self.token, self.ttl_seconds = ref, token, ttl_seconds
        self._append = append
        self._why_lost = ""
        self._settled = threading.Event()
        self._renewing = threading.Lock()
        """Held while a renewal or a result is under way: a result ends the lease, and a renewal after it would be refused."""
        self._good_until = time.monotonic() + left_seconds - (1 - SAFE_SHARE) * ttl_seconds
        self._thread = threading.Thread(
            target=self._renew_on, args=(left_seconds - SAFE_SHARE * ttl_seconds,), name=f"renew {ref}", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled.is_set():
            return
        if self.lost or isinstance(error, LeaseLost):
            self.let_go()  # first: a renewal would keep the lease alive
            if error is None:
                self.check()
        elif error is None:
            self.done()
        else:
            # an interrupt does not count against the task; any other exception does
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            self.drop(f"{type(error).__name__}: {error}"[:200], failed=not stopped)

    @property
    def lost(self) -> bool:
        """True once somebody else may hold the task."""
        if not self._why_lost and not self._settled.is_set() and time.monotonic() >= self._good_until:
            self._why_lost = "it could not be renewed in time"
        return bool(self._why_lost)

    def check(self) -> None:
        """Raises LeaseLost if the lease is lost; call it between steps and before publishing anything."""
        if self.lost:
            raise LeaseLost(self.ref, f"the lease (token {self.token}) is lost: {self._why_lost}", "claim it anew")

    def report(self, kind: str, **facts: Any) -> int:
        """A result under this token: `prepared`, `trained`, `verdict` or `score`, which finish the task, or `checkpoint`.

        What was measured is one of them: `figures={"eval_loss": 0.41, "base_eval_loss": 2.04}`.

        Raises Refused if the token is stale, UserError for fields that will not do.
        """
        if kind not in ev.RESULTS - {"done", "drop"}:
            raise UserError(kind, "is no result", f"report one of {', '.join(sorted(ev.RESULTS - {'done', 'drop'}))}")
        return self.append_result(checked(ev.KINDS[kind], ref=self.ref, tok=self.token, **facts))

    def append_result(self, event: Event) -> int:
        """Append a result; the lease goes on if it is refused, and is over if it finishes the task."""
        with self._renewing:
            seq = self._append(event)
            if event.kind in ev.SETTLING:
                self._settled.set()
        return seq

    def done(self, *, body: str = "", path: str | None = None, sha256: str | None = None, **facts: Any) -> int:
        """The task is finished; further facts are those of `events.Done`.  Raises Refused if the token is stale."""
        return self._settle(
            checked(ev.Done, ref=self.ref, tok=self.token, body=body, path=path, sha256=sha256, **facts)
        )

    def drop(self, why: str = "", *, failed: bool = False, idem: str | None = None) -> int:
        """Give the task back; `failed` counts against its retries.  Raises Refused if the token is stale."""
        return self._settle(checked(ev.Drop, ref=self.ref, tok=self.token, why=why or None, failed=failed, idem=idem))

    def hand(self, to: str, *, body: str = "", ttl_seconds: float | None = None, idem: str | None = None) -> int:
        """Transfer the lease to another agent, who continues with `claim`; returns the new token.

        Raises Refused if the token is stale.
        """
        ttl = self.ttl_seconds if ttl_seconds is None else ttl_seconds
        return self._settle(checked(ev.Hand, ref=self.ref, tok=self.token, to=to, ttl=ttl, body=body, idem=idem))

    def let_go(self) -> None:
        """Stop renewing without an entry: the lease expires."""
        self._settled.set()

    def _settle(self, event: Event) -> int:
        self._settled.set()  # first: a renewal must not follow what ends the lease
        self._thread.join(timeout=15.0)
        return self._append(event)

    def _renew_on(self, first_seconds: float) -> None:
        wait = max(0.0, first_seconds)
        while not self._settled.wait(wait) and not self._why_lost:  # a lease that was reported lost stays lost
            try:
                wait = self._renew()
            except Refused as refusal:
                self._why_lost = refusal.what
                return
            except UserError:  # no answer: after too long the lease counts as lost
                wait = self.ttl_seconds / 30

    def _renew(self) -> float:
        """Returns after how many seconds to renew again."""
        with self._renewing:
            asked = time.monotonic()
            if not self._settled.is_set():
                self._append(ev.Renew(ref=self.ref, tok=self.token, ttl=self.ttl_seconds))
                self._good_until = asked + SAFE_SHARE * self.ttl_seconds
            return self.ttl_seconds * (1 - SAFE_SHARE)
