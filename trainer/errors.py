"""What can end a task early: mistakes that a user can mend, and the ends of a lease; anything else is a bug and keeps its traceback."""

from __future__ import annotations


class UserError(Exception):
    """`where: what; the likely fix`, in one line."""

    def __init__(self, where: str, what: str, fix: str) -> None:
        super().__init__(f"{where}: {what}; {fix}")
        self.where, self.what, self.fix = where, what, fix


class LeaseLost(Exception):
    """The lease is another's now: end without a word."""


class LeaseStopped(Exception):
    """The task was stopped from outside: save what is whole, give it back."""
