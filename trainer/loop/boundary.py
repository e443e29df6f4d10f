"""What the loop tells whoever runs it, and asks after each step: the place for orders, figures, evaluations and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.loop.parts import Stepped
    from trainer.loop.stream import Failed, Stream


class Boundary:
    """Does nothing; those that do something override."""

    def stepped(self, stream: Stream, step: Stepped) -> str | None:
        """After each optimizer step of a stream.  Returns why the stream is to stop, or None."""

    def ended(self, stream: Stream, why: str) -> None:
        """The stream has stopped and left the loop."""

    def failed(self, stream: Stream, why: Failed) -> None:
        """The stream was evicted: its data failed, its figures were not finite, or memory did not hold it alone."""

    def split(self, pass_tokens: int) -> None:
        """Memory did not hold a pass of several rows: passes hold at most so many tokens from now on."""
