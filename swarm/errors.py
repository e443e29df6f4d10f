"""What a user can mend: one error reads `where: what; the likely fix`, in one line; several are told all at once.

Printing them and the exit status are the command line's work.
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Something that the user wrote or chose will not do."""

    def __init__(self, where: str, what: str, fix: str) -> None:
        super().__init__(f"{where}: {what}; {fix}")
        self.where, self.what, self.fix = where, what, fix


REFUSED = 5
"""Exit status of a command that was refused."""


class Refused(UserError):
    """The event may not happen now."""

    status = REFUSED


class UserErrors(Exception):
    """All problems of a config, in the order in which they stand in it."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        self.errors = tuple(errors)
        super().__init__(*self.errors)

    def __str__(self) -> str:
        count = len(self.errors)
        return "\n".join([*map(str, self.errors), f"{count} problem{'' if count == 1 else 's'}; nothing was started"])
