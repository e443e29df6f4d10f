"""A task in the hands of a worker, and whoever else works beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.events import Post
from swarm.messages import Piece
from trainer.lease import Lease


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


class Mates(Protocol):
    """Where a group of trainings gets its members, and where they go."""

    def arrived(self) -> Sequence[Work]:
        """Those that have come since it was last asked; work on their leases has begun."""

    def ended(self, work: Work, error: Exception | None) -> None:
        """All that there is to report has been reported but the error; called from any thread."""

    def wait(self) -> None:
        """Until something may have arrived, or an order has come for one of them."""
