"""Rows that cannot be used: what is wrong with one, where it stands, and the fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from swarm.printable import one_line

REASON_CHARACTERS = 200


class NotARow(Exception):
    """What is wrong with a row, and the fix."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


class NotProven(NotARow):
    """The base's chat template or tokenizer does not show which tokens of the row are the assistant's."""

    def __init__(self, what: str, fix: str, weight: int = 1) -> None:
        super().__init__(what, fix)
        self.weight = weight
        """Of several reasons the one with the greatest says most."""


class TooLong(NotARow):
    """It has more tokens than there is room for."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used."""

    where: str
    what: str
    fix: str
    text: Callable[[], str] = str
    """What stands there, without loss; called where the row is set aside."""
    of_base: bool = False
    """True where the base refuses the row; where it refuses all rows, the base is to blame."""

    def __post_init__(self) -> None:
        # A row's own words may stand in them, and those may be of any kind and length.
        object.__setattr__(self, "what", one_line(self.what))
        object.__setattr__(self, "fix", one_line(self.fix))

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.fix}"


def reason_of(error: BaseException) -> str:
    """An unforeseen exception in one line of bounded length."""
    words = " ".join(str(error).split())[:REASON_CHARACTERS]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
