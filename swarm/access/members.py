"""Invites and revokes the members of a run, with their roles; the bus checks the same list for every message.

A name that acts for the first time gets a key with the role `agent`, made by the run's owner; a revoked name does not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bus.errors import BusError
from bus.keys import Join, Members
from swarm.errors import Refused, UserError
from swarm.files import write_whole
from swarm.plainfiles import read_text
from swarm.policy.admission import MAY_APPEND
from swarm.rundir import RunFolder, checked_name, user_name
from swarm.state import Refusal


def open_members(folder: RunFolder, listen: str | None = None) -> Members:
    """The run's key folder, made at the first start or invitation; without `listen` its sockets are in the private runtime folder."""
    if (folder.keys / "members.json").exists():
        return Members.open(folder.keys)
    return Members.create(folder.keys, *_endpoints(folder, listen))


def members_for_hub(folder: RunFolder, listen: str | None) -> Members:
    """The same for a coordinator that will listen: the owner is a member, and the join files have the right endpoints.

    Raises UserError if the keys or the address cannot be used.
    """
    try:
        members = open_members(folder, listen)
        members.move(*_endpoints(folder, listen))
        members.invite(user_name(), "admin")
    except BusError as error:
        raise user_error(error) from error
    return members


def _endpoints(folder: RunFolder, listen: str | None) -> tuple[str, str]:
    """The hub's endpoint and its publish endpoint."""
    if listen is None:
        return f"ipc://{folder.sockets()}/bus", f"ipc://{folder.sockets()}/all"
    address, _, port = listen.rpartition(":")
    return listen, f"{address}:{int(port) + 1}"


def write_connect(folder: RunFolder, members: Members) -> None:
    """Write `connect.json`, the owner's join file."""
    write_whole(folder.connect, read_text(members.invite(user_name(), "admin")), mode=0o600)


def join_file(folder: RunFolder, name: str | None) -> Path:
    """The join file of this name; without a name, the owner's.

    Raises Refused for a revoked name, BusError if the keys cannot be used.
    """
    if name is None:
        return folder.connect
    path = folder.keys / "join" / f"{name}.json"
    if path.exists():
        return path
    members = Members.open(folder.keys)
    _check_not_revoked(members, name)
    return members.invite(name, "agent")


def role_of(folder: RunFolder, name: str) -> str:
    """The role of a name; `agent` if it was never invited, or if we may not read the list.

    Raises Refused for a revoked name, and if our own list is damaged: it cannot tell then who was revoked.
    """
    listed = folder.keys / "members.json"
    try:
        members = Members.open(folder.keys)
    except BusError as error:
        if os.access(listed, os.R_OK):
            raise Refused(folder.name, str(error), "repair it first") from error
        return "agent"
    _check_not_revoked(members, name)
    member = members.by_name(name)
    return member.role if member else "agent"


def check_hand(members: Members, to: str) -> None:
    """Raises Refusal for a receiver that could not work on a task: a viewer, or a revoked member."""
    member = members.by_name(to)
    if to in members.revoked or (member and member.role == "viewer"):
        raise Refusal(
            f"{to}: {'was revoked' if to in members.revoked else 'is a viewer'}; hand it to a member who may act"
        )


def invite(folder: RunFolder, name: str, role: str, *, by: str | None) -> tuple[Path, str]:
    """The join file of a member, made if necessary, and a fingerprint of its public key.

    Raises UserError for an invalid name or role, Refused where `by` (None: the owner) may not invite.
    """
    if role not in MAY_APPEND:
        raise UserError("--role", f"{role!r} is not a role", f"take one of {', '.join(MAY_APPEND)}")
    try:
        path = _members_for(folder, by, name).invite(name, role)
        return path, hashlib.sha256(Join.load(path).public_key.encode()).hexdigest()[:16]
    except BusError as error:
        raise user_error(error) from error


def revoke(folder: RunFolder, name: str, *, by: str | None) -> None:
    """Revoke a member, which also ends its connections.  Raises UserError if there never was one, Refused as `invite` does."""
    try:
        _members_for(folder, by, name).revoke(name)
    except BusError as error:
        raise user_error(error) from error


def _members_for(folder: RunFolder, by: str | None, name: str) -> Members:
    if folder.path.stat().st_uid != os.geteuid():
        raise Refused(folder.name, "is not your run", "ask its owner: only the folder's owner can invite and revoke")
    if by is not None and (role := role_of(folder, by)) != "admin":
        raise Refused(by, f"role {role} may not invite or revoke", "the run's owner and its admins may")
    if checked_name(name, "NAME") == user_name():
        raise UserError(name, "is the run's owner and always an admin", "take another name")
    return open_members(folder)


def _check_not_revoked(members: Members, name: str) -> None:
    if name in members.revoked:
        raise Refused(name, "was revoked", f"`swarm invite {name}` admits it again")


def user_error(error: BusError) -> UserError:
    """A BusError as a UserError: its text has the same form, `where: what; the likely fix`."""
    where, _, rest = str(error).partition(": ")
    what, _, fix = rest.partition("; ")
    return UserError(where, what, fix or "take another name")
