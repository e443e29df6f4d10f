"""The two ways in which a lease ends from outside.  A mistake that a user can mend is `swarm.errors.UserError`; anything else keeps its traceback."""

from __future__ import annotations


class LeaseLost(Exception):
    """The lease is another's now: end without a word."""


class LeaseStopped(Exception):
    """The task was stopped from outside: save what is whole, give it back."""
