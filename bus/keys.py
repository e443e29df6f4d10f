"""Who may join: one CURVE key pair per member, an allow-list in a private folder, and a join file for each member.

Opens no socket: the hub calls `Members.by_key` for every connection and every message. Keys are Z85 text of 40 characters
(RFC 32/Z85), made by libzmq's `zmq_curve_keypair`. Files are replaced in one step, mode 0600, in a folder of mode 0700.
"""

import fcntl
import ipaddress
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import zmq

from bus.envelope import HUB_NAME
from bus.errors import BusError
from bus.private import check_folder, open_private, read_private, write_private

IPC_PATH_BYTES = 107
"""sizeof(sockaddr_un.sun_path) - 1 on Linux, unix(7); libzmq fails with ENAMETOOLONG beyond it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_EVERYWHERE = {"0.0.0.0", "[::]"}  # noqa: S104  (refused, not bound)
_LOOK_AGAIN_SECONDS = 0.02
"""How long the list in memory is used without a stat of the file, which costs about as much as unpacking a message."""


@dataclass(frozen=True)
class Member:
    """An entry of the allow-list."""

    name: str
    role: str
    public_key: str


@dataclass(frozen=True)
class Join:
    """All that a peer needs to join one hub. It holds a secret key: stored with mode 0600, never in a command line or a log."""

    endpoint: str
    publish_endpoint: str
    server_key: str
    name: str
    role: str
    public_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a join file. Raises BusError if it is missing, a symlink, another user's, open to others, or not a join file."""
        values = read_private(path)
        try:
            join = cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise BusError(f"{path}: not a join file: {error}") from error
        join._check(path)
        return join

    def save(self, path: Path) -> None:
        """Write the join file, readable by its owner only."""
        write_private(path, asdict(self))

    def _check(self, path: Path) -> None:
        for key in (self.server_key, self.public_key, self.secret_key):
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise BusError(f"{path}: not a join file: a key is not 40 characters of Z85")
        check_name(self.name)
        check_name(self.role)
        check_endpoint(self.endpoint)
        check_endpoint(self.publish_endpoint)


class Members:
    """The allow-list of one run, with the hub's key pair. Several processes may have it open; each sees the changes of the others."""

    def __init__(self, folder: Path) -> None:
        """Use `create` or `open`."""
        self.folder = folder
        self._path = folder / "members.json"
        self._seen: tuple[int, int, int] | None = None
        self._looked_seconds = 0.0
        self._by_key: dict[str, Member] = {}
        self._values: dict[str, object] = {}
        self.revoked: frozenset[str] = frozenset()
        """Names that were revoked and not invited again."""
        self.removals = 0
        """How many times a key was found removed from the list; the hub then disconnects all subscribers."""

    @classmethod
    def create(cls, folder: Path, endpoint: str, publish_endpoint: str) -> Self:
        """Make a new list with a new server key pair. Raises BusError if there is one already or an endpoint cannot be used."""
        folder = Path(folder)
        _check_two(endpoint, publish_endpoint)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_folder(folder)
        with _locked(folder):
            if (folder / "members.json").exists():
                raise BusError(f"{folder}: there already is a members' list; open it instead")
            public, secret = (key.decode() for key in zmq.curve_keypair())
            values = {
                "endpoint": endpoint,
                "publish_endpoint": publish_endpoint,
                "server_key": public,
                "server_secret": secret,
            }
            write_private(folder / "members.json", {**values, "members": []})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an existing list. Raises BusError if it is missing, open to others, or damaged."""
        check_folder(Path(folder))
        members = cls(Path(folder))
        members._read()
        return members

    @property
    def endpoint(self) -> str:
        return str(self._values["endpoint"])

    @property
    def publish_endpoint(self) -> str:
        return str(self._values["publish_endpoint"])

    @property
    def server_key(self) -> str:
        """The hub's public key, which every join file carries."""
        return str(self._values["server_key"])

    @property
    def server_secret(self) -> str:
        """The hub's secret key; it is stored in this folder only."""
        return str(self._values["server_secret"])

    def invite(self, name: str, role: str) -> Path:
        """Write `join/<name>.json` and return its path. Idempotent for the same name and role.

        A revoked name is admitted again with a new key.  Raises BusError for a name that has another role already, or that is
        not a valid name.
        """
        check_name(name)
        check_name(role)
        path = self.folder / "join" / f"{name}.json"
        with _locked(self.folder):
            self._read()
            known = next((member for member in self._by_key.values() if member.name == name), None)
            if known is not None and known.role != role:
                raise BusError(f"{name}: already invited as {known.role}; revoke it first, or choose another name")
            if known is None or not path.exists():
                self._issue(name, role, path)
        return path

    def move(self, endpoint: str, publish_endpoint: str) -> None:
        """Change the hub's endpoints, here and in every join file of this folder.  Raises BusError for an invalid endpoint."""
        _check_two(endpoint, publish_endpoint)
        with _locked(self.folder):
            self._read()
            if (endpoint, publish_endpoint) == (self.endpoint, self.publish_endpoint):
                return
            for path in sorted(
                (self.folder / "join").glob("*.json")
            ):  # before the list: an interrupted move is repeated
                replace(Join.load(path), endpoint=endpoint, publish_endpoint=publish_endpoint).save(path)
            self._values |= {"endpoint": endpoint, "publish_endpoint": publish_endpoint}
            self._write(list(self._by_key.values()))

    def revoke(self, name: str) -> None:
        """Remove the member from the list, and its join file. Idempotent.

        Raises BusError if there never was such a member.
        """
        with _locked(self.folder):
            self._read()
            left = [member for member in self._by_key.values() if member.name != name]
            if len(left) == len(self._by_key) and name not in self.revoked:
                raise BusError(
                    f"{name}: no such member; invited are {', '.join(sorted(m.name for m in left)) or 'none'}"
                )
            self.revoked |= {name}
            self._write(left)
            (self.folder / "join" / f"{name}.json").unlink(missing_ok=True)

    def by_key(self, public_key: str, now_seconds: float | None = None) -> Member | None:
        """The member with this key, or None. Changes by other processes are seen at once for an unknown key, within 20 ms for others.

        `now_seconds`: the time, if the caller has just read `time.monotonic`.
        """
        moment = time.monotonic() if now_seconds is None else now_seconds
        member = self._by_key.get(public_key)
        if member is not None and moment - self._looked_seconds < _LOOK_AGAIN_SECONDS:
            return member
        self.refresh(now=member is None)
        return self._by_key.get(public_key)

    def by_name(self, name: str) -> Member | None:
        """The member with this name, or None."""
        self.refresh()
        return next((member for member in self._by_key.values() if member.name == name), None)

    def __len__(self) -> int:
        return len(self._by_key)

    def refresh(self, *, now: bool = False) -> None:
        """Read the list again if it changed on disk. While it cannot be read, nobody is a member."""
        moment = time.monotonic()
        if not now and moment - self._looked_seconds < _LOOK_AGAIN_SECONDS:
            return
        self._looked_seconds = moment
        try:
            if _signature(self._path) != self._seen:
                self._read()
        except BusError:
            # Fail closed. The signature is reset, so that the file is read again when it is back.
            self._replace({})
            self._seen = None

    def _issue(self, name: str, role: str, path: Path) -> None:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        path.parent.mkdir(mode=0o700, exist_ok=True)
        Join(self.endpoint, self.publish_endpoint, self.server_key, name, role, public, secret).save(path)
        others = [member for member in self._by_key.values() if member.name != name]
        self.revoked -= {name}
        self._write([*others, Member(name, role, public)])

    def _write(self, members: list[Member]) -> None:
        lists = {"members": [asdict(member) for member in members], "revoked": sorted(self.revoked)}
        write_private(self._path, {**self._values, **lists})
        self._read()

    def _read(self) -> None:
        signature = _signature(self._path)
        values = read_private(self._path)
        try:
            listed = [Member(**entry) for entry in values.pop("members")]  # type: ignore[attr-defined]
            revoked = frozenset(map(str, values.pop("revoked", ())))  # type: ignore[call-overload]
            for name in ("endpoint", "publish_endpoint", "server_key", "server_secret"):
                if not isinstance(values[name], str):
                    raise BusError(f"{self._path}: {name} is not text")
        except (KeyError, TypeError) as error:
            raise BusError(f"{self._path}: not a members' list: {error}") from error
        self._values, self._seen, self.revoked = values, signature, revoked
        self._replace({member.public_key: member for member in listed})

    def _replace(self, by_key: dict[str, Member]) -> None:
        if self._by_key.keys() - by_key.keys():
            self.removals += 1
        self._by_key = by_key


def check_name(name: str) -> str:
    """The name itself, if it is valid: `[a-z0-9][a-z0-9._-]{0,63}` and not the hub's. Raises BusError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == HUB_NAME:
        raise BusError(f"{str(name)[:80]!r} is not a valid name: [a-z0-9][a-z0-9._-]{{0,63}}, and not '{HUB_NAME}'")
    return name


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself, if members can connect to it: `ipc:///path` of at most 107 bytes, or `tcp://ADDRESS:PORT`. Raises BusError."""
    if endpoint.startswith("ipc:///"):
        path = endpoint.removeprefix("ipc://").encode()
        if len(path) > IPC_PATH_BYTES:
            raise BusError(
                f"{endpoint}: the path has {len(path)} bytes, a socket path at most {IPC_PATH_BYTES}; use a shorter runtime folder"
            )
        return endpoint
    match = re.fullmatch(r"tcp://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})", endpoint)
    if match is None or not 1 <= int(match[2]) <= 65535 or match[1] in _EVERYWHERE:
        raise BusError(
            f"{endpoint}: not an endpoint that members can connect to; write ipc:///PATH or tcp://ADDRESS:PORT with a fixed port"
        )
    return endpoint


def _check_two(endpoint: str, other: str) -> None:
    if check_endpoint(endpoint) == check_endpoint(other):
        raise BusError(f"{endpoint}: both endpoints are the same; choose another publish endpoint")


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine can reach the endpoint. A host name other than localhost counts as reachable from outside."""
    if endpoint.startswith("ipc://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process changes the list at a time (flock(2); the kernel releases it when the process ends)."""
    try:
        descriptor = open_private(folder / "members.lock")
    except OSError as error:
        raise BusError(f"{folder}/members.lock: {error.strerror}; a plain file belongs there: move it away") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _signature(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise BusError(f"{path}: {error.strerror}") from error
    return status.st_ino, status.st_mtime_ns, status.st_size
