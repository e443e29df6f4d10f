"""The roles: one module each, whose `run(piece, lease, place)` does one task; this folder is the list of names.

Importing a role imports the heavy libraries it needs; importing this package imports none.
"""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from swarm.event import Role
from swarm.messages import Piece
from trainer.lease import Lease
from trainer.place import Place
from trainer.work import Mates


class RoleModule(Protocol):
    def run(self, piece: Piece, lease: Lease, place: Place) -> None:
        """Do the task and report what came of it; raises UserError, LeaseStopped or LeaseRevoked."""


class SharedRole(RoleModule, Protocol):
    """One whose tasks are done together where they have a base in common."""

    def together(self, mates: Mates, place: Place) -> None:
        """Those that arrive, until none is left.  Raises what is no single task's fault."""


def load(role: Role) -> RoleModule:
    return cast("RoleModule", importlib.import_module(f"trainer.roles.{role}"))
