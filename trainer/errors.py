"""Exceptions that end a task without being an error: its lease was ended from outside, or another engine has to do the training.

An error that a user can mend is `swarm.errors.UserError`; any other keeps its traceback.
"""

from __future__ import annotations


class LeaseRevoked(Exception):
    """The coordinator has ended the lease: stop, and report nothing."""


class LeaseStopped(Exception):
    """The task was stopped from outside: save a checkpoint and give the task back."""


class Elsewhere(Exception):
    """The shared engine cannot do this training and TRL can; the text says why."""
