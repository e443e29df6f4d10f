"""Errors that a user can fix. Each is one line, `where: what; the likely fix`; all errors of a config are reported together.

The command line prints them and sets the exit status.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.redaction import redacted


class UserError(Exception):
    """Something that the user wrote or chose is not valid."""

    def __init__(self, where: str, what: str, fix: str) -> None:
        self.where, self.what, self.fix = redacted(where), redacted(what), redacted(fix)
        super().__init__(f"{self.where}: {self.what}; {self.fix}")


REFUSED = 5
"""Exit status of a command that was refused."""


class Refused(UserError):
    """The event is not allowed now."""

    status = REFUSED


class UserErrors(Exception):
    """All problems of a config, in the order of its lines."""

    def __init__(self, errors: Sequence[UserError], outcome: str = "nothing was started") -> None:
        self.errors, self.outcome = tuple(errors), outcome
        super().__init__(*self.errors)

    def __str__(self) -> str:
        count = len(self.errors)
        return "\n".join([*map(str, self.errors), f"{count} problem{'' if count == 1 else 's'}; {self.outcome}"])
