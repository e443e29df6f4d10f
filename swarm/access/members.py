"""Who may take part in a run, and as what: members are let in and struck here; the bus asks the same list for every message.

A name that acts for the first time gets a key as `agent`, made for it by the run's owner; one that was revoked does not.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bus.errors import BusError
from bus.keys import Join, Members
from swarm.errors import Refused, UserError
from swarm.files import write_whole
from swarm.policy.admission import MAY_APPEND
from swarm.rundir import RunFolder, checked_name, user_name
from swarm.state import Refusal


def open_members(folder: RunFolder, listen: str | None = None) -> Members:
    """The run's key folder, made at the first start or invitation; without `listen` its sockets stand in the private runtime folder."""
    if (folder.keys / "members.json").exists():
        return Members.open(folder.keys)
    return Members.create(folder.keys, *_endpoints(folder, listen))


def members_for_hub(folder: RunFolder, listen: str | None) -> Members:
    """The same for who is about to listen: the owner may come in, and the join files name the place where they will be heard.

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
    """Where the hub hears everybody, and where it publishes."""
    if listen is None:
        return f"ipc://{folder.sockets()}/bus", f"ipc://{folder.sockets()}/all"
    address, _, port = listen.rpartition(":")
    return listen, f"{address}:{int(port) + 1}"


def write_connect(folder: RunFolder, members: Members) -> None:
    """`connect.json`: the owner's way in."""
    write_whole(folder.connect, members.invite(user_name(), "admin").read_text(encoding="utf-8"), mode=0o600)


def join_file(folder: RunFolder, name: str | None) -> Path:
    """The key to come in with: the owner's without a name.

    Raises Refused for a name that was revoked, BusError if the keys cannot be used.
    """
    if name is None:
        return folder.connect
    path = folder.keys / "join" / f"{name}.json"
    if path.exists():
        return path
    members = Members.open(folder.keys)
    _check_welcome(members, name)
    return members.invite(name, "agent")


def role_of(folder: RunFolder, name: str) -> str:
    """The rights under which a name acts; an agent's if it never was let in, or the list is not ours to read.

    Raises Refused for one that was revoked, and where our own list cannot be read: nobody knows then who was.
    """
    listed = folder.keys / "members.json"
    try:
        members = Members.open(folder.keys)
    except BusError as error:
        if os.access(listed, os.R_OK):
            raise Refused(folder.name, str(error), "put it right first") from error
        return "agent"
    _check_welcome(members, name)
    member = members.by_name(name)
    return member.role if member else "agent"


def check_hand(members: Members, to: str) -> None:
    """Raises Refusal for who could do nothing with a task: a viewer, or one whose key was struck."""
    member = members.by_name(to)
    if to in members.revoked or (member and member.role == "viewer"):
        raise Refusal(
            f"{to}: {'was revoked' if to in members.revoked else 'only looks'}; hand it to somebody who may act"
        )


def invite(folder: RunFolder, name: str, role: str, *, by: str | None) -> tuple[Path, str]:
    """The join file of a member, made if need be, and a mark that tells its key from any other and gives nothing away.

    Raises UserError for what cannot be, Refused where `by` (None: the owner) may not.
    """
    if role not in MAY_APPEND:
        raise UserError("--role", f"{role!r} is no role", f"take one of {', '.join(MAY_APPEND)}")
    try:
        path = _members_for(folder, by, name).invite(name, role)
        return path, hashlib.sha256(Join.load(path).public_key.encode()).hexdigest()[:16]
    except BusError as error:
        raise user_error(error) from error


def revoke(folder: RunFolder, name: str, *, by: str | None) -> None:
    """Strike a member; its connections end too.  Raises UserError if there never was one, Refused as `invite` does."""
    try:
        _members_for(folder, by, name).revoke(name)
    except BusError as error:
        raise user_error(error) from error


def _members_for(folder: RunFolder, by: str | None, name: str) -> Members:
    if folder.path.stat().st_uid != os.geteuid():
        raise Refused(folder.name, "is not your run", "ask its owner; who owns the folder lets members in")
    if by is not None and (role := role_of(folder, by)) != "admin":
        raise Refused(by, f"role {role} may not say who takes part", "the run's owner and its admins may")
    if checked_name(name, "NAME") == user_name():
        raise UserError(name, "is the run's owner, who is always admin", "take another name")
    return open_members(folder)


def _check_welcome(members: Members, name: str) -> None:
    if name in members.revoked:
        raise Refused(name, "was revoked", f"`swarm invite {name}` lets that name in again")


def user_error(error: BusError) -> UserError:
    """The bus says `where: what; the likely fix` too."""
    where, _, rest = str(error).partition(": ")
    what, _, fix = rest.partition("; ")
    return UserError(where, what, fix or "take another name")
