"""The two ways in which a lease ends from outside, and a training that is for another engine.  A mistake that a user can mend is `swarm.errors.UserError`; any other keeps its traceback."""

from __future__ import annotations


class LeaseRevoked(Exception):
    """The coordinator has ended the lease: stop, and report nothing."""


class LeaseStopped(Exception):
    """The task was stopped from outside: save a checkpoint, give it back."""


class Elsewhere(Exception):
    """The shared engine cannot do this training and TRL can; the text says why."""
