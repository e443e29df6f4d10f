"""Messages to the receivers of `alerts:`: a queue in the run folder, and the sending of one message.

A message stays in the queue until its receiver has taken it, so that none is lost with a coordinator; its `id` tells a repeat.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from swarm.errors import UserError
from swarm.files import read_json, write_whole
from swarm.plainfiles import make_folder, remove_file
from swarm.policy.alerts import message
from swarm.posting import post
from swarm.redaction import redacted
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.settings.alerts import Alert
from swarm.state import State

FOLDER, CURSOR = "alerts", "cursor.json"
SIGNATURE = "X-Swarm-Signature"
SECONDS = 20.0
"""Time that a receiver has to take one message."""
NUMBER = re.compile(r"[0-9]{1,6}")
"""Of a receiver: a file whose name ends with anything else is not ours."""
TALK_BYTES = 4096
"""Of what a command that fails says last."""

_running: set[subprocess.Popen[bytes]] = set()


class NotSent(Exception):
    """The receiver did not take it; the text says why."""


class Queue:
    """Of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path / FOLDER

    @property
    def cursor(self) -> int:
        """The last entry whose messages are in the queue or were sent.  Raises UserError."""
        file = self.path / CURSOR
        seq = read_json(file).get("seq") if file.exists() else 0
        if type(seq) is not int:
            raise UserError(str(file), "holds no number of an entry", "remove it: alerts are sent again")
        return seq

    def put(self, alerts: Sequence[Alert], messages: Sequence[Mapping[str, Any]], seq: int) -> None:
        """Messages of the entries up to `seq`; the same message twice is one file.  Raises OSError."""
        make_folder(self.path)
        for one in messages:
            for number, alert in enumerate(alerts):
                if one["occasion"] in alert.on:
                    write_whole(self.path / f"{one['seq']:08d}-{one['id']}-{number}.json", json.dumps(one))
        write_whole(self.path / CURSOR, json.dumps({"seq": seq}))

    def waiting(self) -> Iterator[tuple[Path, int, dict[str, Any]]]:
        """File, number of the receiver and message of all that was not taken, the oldest first.  Raises UserError."""
        for path in sorted(self.path.glob("*-*-*.json")):
            if NUMBER.fullmatch(number := path.stem.rpartition("-")[2]):
                yield path, int(number), read_json(path)

    def sent(self, alerts: Sequence[Alert]) -> list[dict[str, str]]:
        """Sends what waits: a row for each receiver, with the reason why it did not take it; then it gets nothing more in this round.  Raises UserError."""
        why: dict[int, str] = {}
        for path, number, one in self.waiting():
            if why.get(number):
                continue
            why[number] = (
                _tried(alerts[number], one) if number < len(alerts) else ""
            )  # else the config names it no more
            if not why[number]:
                remove_file(path)
        return [
            {"receiver": receiver_of(alerts[number]), "why": text}
            for number, text in why.items()
            if number < len(alerts)
        ]


def send(alert: Alert, one: Mapping[str, Any]) -> None:
    """Raises NotSent."""
    body = json.dumps(one, sort_keys=True).encode()
    if alert.command:
        _run(alert.command, body)
    else:
        _post(alert, body)


def tested(settings: RunSettings, run: str) -> list[dict[str, str]]:
    """A test message of this run to each receiver: rows as of `Queue.sent`."""
    text = "a test message of `swarm notify --test`"
    one = message(State(), "test", "", text, 0) | {"run": run, "id": f"{run}-test"}
    return [{"receiver": receiver_of(alert), "why": _tried(alert, one)} for alert in settings.alerts]


def _tried(alert: Alert, one: Mapping[str, Any]) -> str:
    try:
        send(alert, one)
    except NotSent as error:
        return str(error)
    return ""


def receiver_of(alert: Alert) -> str:
    """In words, without what may be secret in an address."""
    if alert.command:
        return alert.command[0]
    return "/".join(str(alert.url).split("/")[:3])


def _run(command: Sequence[str], body: bytes) -> None:
    """What it says is kept in a file: a process that it leaves behind may hold its output open, and endless output fills no memory."""
    try:
        with TemporaryFile() as talk:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=talk, start_new_session=True
            )
            _wait_for(process, body)
            if process.returncode:
                talk.seek(max(0, talk.seek(0, os.SEEK_END) - TALK_BYTES))
                last = talk.read().decode(errors="replace").strip().splitlines()[-1:]
                raise NotSent(redacted(": ".join([f"{command[0]}: exit status {process.returncode}", *last])))
    except OSError as error:
        raise NotSent(f"{command[0]}: {error}") from error


def _wait_for(process: subprocess.Popen[bytes], body: bytes) -> None:
    """Raises NotSent for one that does not end in time; then it and all that it has started are ended."""
    _running.add(process)
    try:
        process.communicate(body, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        _end(process)
        process.wait()
        raise NotSent(str(error)) from error
    finally:
        _running.discard(process)


def end_commands() -> None:
    """Those that have not ended, with all that they have started: this process ends."""
    for process in list(_running):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _post(alert: Alert, body: bytes) -> None:
    url = str(alert.url)
    if url.startswith("$"):
        url = os.environ.get(url[1:], "")
        if not url.startswith(("http://", "https://")):
            raise NotSent(f"{alert.url}: the environment variable holds no address")
    try:
        post(url, body, {"Content-Type": "application/json", **signature(alert, body)}, SECONDS)
    except OSError as error:
        inner = getattr(error, "reason", None)  # urllib puts words of its own around it
        why = inner.strerror if isinstance(inner, OSError) else error
        raise NotSent(f"{receiver_of(alert)}: {why or inner}") from error


def signature(alert: Alert, body: bytes) -> dict[str, str]:
    """The header by which a receiver knows the sender.  Raises NotSent where its key is missing."""
    if alert.secret_env is None:
        return {}
    secret = os.environ.get(alert.secret_env)
    if not secret:
        raise NotSent(f"{alert.secret_env}: the environment variable holds no key")
    return {SIGNATURE: f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}
