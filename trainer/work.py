"""A task in the hands of a worker, and whoever else works beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.events import Post
from swarm.messages import Piece
from trainer.lease import Lease
from trainer.place import Place


@dataclass(eq=False)
class Work:
    """A task that was assigned and is not finished."""

    piece: Piece
    lease: Lease
    apart: bool = False
    """A training that the shared engine could not take: TRL trains it, by itself."""

    def set_apart(self, why: str) -> None:
        self.apart = True
        self.lease.report(Post(ref=self.piece.ref, body=f"trained by TRL, by itself: {why}"))

    def note(self, text: str) -> None:
        self.lease.report(Post(ref=self.piece.ref, body=text))

    def error_of(self, do: Callable[[], None]) -> Exception | None:
        """What ends it; None where all has been reported that there is to say."""
        try:
            self.lease.check()
            do()
        except Exception as error:  # a task's failure is the stream's: the others go on
            return error
        return None


class Mates(Protocol):
    """Where a group of tasks gets its members, and where they go."""

    def arrived(self, at_most: int | None = None) -> Sequence[Work]:
        """Those that have come since it was last asked; work on their leases has begun."""

    def ended(self, work: Work, error: Exception | None) -> None:
        """All that there is to report has been reported but the error; called from any thread."""

    def wait(self) -> None:
        """Until something may have arrived, or an order has come for one of them."""


class Nobody:
    """The company of a single task."""

    def __init__(self, work: Work) -> None:
        self._work = [work]
        self._lease = work.lease
        self.error: Exception | None = None

    def arrived(self, at_most: int | None = None) -> Sequence[Work]:
        found, self._work = self._work, []
        return found

    def ended(self, work: Work, error: Exception | None) -> None:
        self.error = error

    def wait(self) -> None:
        self._lease.wait_while_paused()


def alone(together: Callable[[Mates, Place], None], work: Work, place: Place) -> None:
    """One task with no others beside it.  Raises what ends it."""
    nobody = Nobody(work)
    together(nobody, place)
    if nobody.error is not None:
        raise nobody.error
