"""Who is invited with which role, and what a revoked member can still do, with and without a coordinator."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from bus.keys import Join
from swarm import Agent
from swarm import events as ev
from swarm.access.client import Client
from swarm.agents.agent import Refused
from swarm.rundir import RunFolder, user_name
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, coordinator, entries, opened

Command = Callable[..., Any]
ATTENDED = {"with a coordinator": coordinator, "with nobody at work": nullcontext}
attended = pytest.mark.parametrize("at_work", ATTENDED.values(), ids=list(ATTENDED))
AtWork = Callable[[RunFolder], AbstractContextManager[object]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = opened(tmp_path)
    configure(tmp_path, made)
    yield made


@pytest.fixture
def swarm(folder: RunFolder, tmp_path: Path) -> Command:
    """A command in the run: what it printed on both, told apart by its exit status."""

    def command(*words: str, check: int = 0) -> str:
        done = sp.swarm(*words, "--run", str(folder.path), cwd=tmp_path, check=check)
        return done.stderr if check else done.stdout

    return command


def test_an_invitation_is_a_private_file_and_an_entry_and_its_keys_are_nowhere_else(
    folder: RunFolder, swarm: Command
) -> None:
    path = Path(swarm("invite", "ada").strip())
    assert path == folder.keys / "join" / "ada.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = json.loads(swarm("invite", "ada", "--json"))
    join = Join.load(path)
    assert (join.name, join.role) == ("ada", "agent")
    assert told == {"seq": 2, "name": "ada", "role": "agent", "path": str(path), "by": user_name()}
    said = [(e.author, e.event.body) for e in entries(folder)[1:]]
    assert said == [(user_name(), "invited ada as agent")], "the same invitation is recorded once"
    for key in (join.public_key, join.secret_key, join.server_key):
        assert key not in folder.log.read_text() + json.dumps(told)


@attended
def test_a_viewer_may_read_and_may_not_append(folder: RunFolder, swarm: Command, at_work: AtWork) -> None:
    swarm("invite", "vic", "--role", "viewer")
    with at_work(folder):
        refused = swarm("post", "run", "hello", "--as", "vic", check=5)
        assert refused == "post: role viewer may not append 'post'; worker, agent, admin may\n"
        assert "may not append 'claim'" in swarm("claim", "wide/prepare", "--as", "vic", check=5)
        assert "may not append 'pause'" in swarm("pause", "wide", "--as", "vic", check=5)
        assert "may not invite or revoke" in swarm("invite", "eve", "--as", "vic", check=5)
        assert "nothing new" in swarm("inbox", "--as", "vic")
    assert not [entry for entry in entries(folder) if entry.author == "vic"]


@attended
def test_an_agent_revoked_while_it_is_connected_is_refused_from_then_on(
    folder: RunFolder, swarm: Command, at_work: AtWork
) -> None:
    swarm("invite", "ada")
    with at_work(folder), Agent("ada", folder.path) as ada:
        ada.post("I am here")
        assert "revoked ada" in swarm("revoke", "ada")
        with pytest.raises(Refused, match="revoked") as told:
            ada.post("and now?")
        assert told.value.status == 5
        time.sleep(0.5)  # a hub at work has parted from her by now
        began = time.monotonic()
        with pytest.raises(Refused, match=r"`swarm invite ada` admits"):
            ada.post("still not?")
        assert time.monotonic() - began < 5
        assert "was revoked" in swarm("post", "run", "by a new process", "--as", "ada", check=5)
        swarm("invite", "ada")
        ada.post("with a new key")
    bodies = [e.event.body for e in entries(folder) if isinstance(e.event, ev.Post)][1:]
    assert bodies == ["invited ada as agent", "I am here", "revoked ada", "invited ada as agent", "with a new key"]


@attended
def test_an_invited_admin_may_do_what_the_owner_may(folder: RunFolder, swarm: Command, at_work: AtWork) -> None:
    swarm("invite", "boss", "--role", "admin")
    with at_work(folder), Agent("boss", folder.path) as boss:
        swarm("invite", "ada", "--as", "boss")
        promotion = ev.Promote(ref="narrow", path="promoted", sha256="a" * 64, why="mine")
        with pytest.raises(Refused, match=r"no such stream|no run was started here yet"):
            boss.append(promotion)
        with Agent("ada", folder.path) as ada, pytest.raises(Refused, match="role agent may not append 'promote'"):
            ada.append(promotion)
    assert [e.author for e in entries(folder) if e.event.body == "invited ada as agent"] == ["boss"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (
            ("invite", "ada", "--role", "boss"),
            2,
            "--role: 'boss' is not a role; take one of viewer, worker, agent, admin",
        ),
        (("invite", "../ada"), 2, "NAME: '../ada' is not a valid name"),
        (("invite", "hub"), 2, "NAME: hub is a reserved name; take another name"),
        (("invite", "coordinator", "--role", "worker"), 2, "coordinator is a reserved name"),
        (("invite", "bob", "--role", "admin"), 2, "bob: already invited as agent; revoke it first"),
        (("invite", "eve", "--as", "bob"), 5, "bob: role agent may not invite or revoke"),
        (("invite", user_name(), "--role", "viewer"), 2, "is the run's owner"),
        (("revoke", user_name()), 2, "is the run's owner"),
        (("revoke", "zed"), 2, "zed: no such member; invited are bob"),
    ],
)
def test_an_invalid_invitation_is_refused_with_its_fix(
    swarm: Command, folder: RunFolder, words: tuple[str, ...], status: int, told: str
) -> None:
    swarm("invite", "bob")
    before = len(entries(folder))
    assert told in swarm(*words, check=status)
    assert len(entries(folder)) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_only_the_owner_of_the_run_can_invite(swarm: Command, folder: RunFolder) -> None:
    os.chown(folder.path, 12345, 12345)
    assert "is not your run; ask its owner" in swarm("invite", "ada", check=5)
    assert not (folder.keys / "members.json").exists()


def test_a_key_folder_without_its_list_is_a_run_that_is_just_starting(folder: RunFolder) -> None:
    folder.keys.mkdir(mode=0o700, exist_ok=True)
    assert not (folder.keys / "members.json").exists()
    with Client(folder, "ada") as ada:
        assert ada.append(ev.Post(ref="run", body="early")) == 2


def test_reserved_names_cannot_be_used(folder: RunFolder, swarm: Command) -> None:
    for name in ("coordinator", "log", "unknown", "run", "hub"):
        assert "take another name" in swarm("post", "run", "spoof", "--as", name, check=2)
        assert "take another name" in swarm("invite", name, check=2)
    swarm("invite", "trainer-1", "--role", "worker")
    assert "is the name of a worker of this run" in swarm("post", "run", "spoof", "--as", "trainer-1", check=5)


@attended
def test_a_task_cannot_be_handed_to_a_member_who_may_not_act(
    folder: RunFolder, swarm: Command, at_work: AtWork
) -> None:
    swarm("invite", "vi", "--role", "viewer")
    swarm("invite", "gone")
    swarm("revoke", "gone")
    with at_work(folder), Agent("ada", folder.path) as ada:
        ada.task("qa/look")
        lease = ada.claim("qa/look")
        for to, why in (("vi", "is a viewer"), ("gone", "was revoked"), ("ada", "holds it already")):
            with pytest.raises(Refused, match=why):
                ada.append(ev.Hand(ref="qa/look", tok=lease.token, to=to, ttl=60))
        lease.hand("bob")


def test_an_unreadable_members_list_gives_nobody_rights(folder: RunFolder, swarm: Command) -> None:
    swarm("invite", "ada")
    (folder.keys / "members.json").write_text("damaged")
    assert "repair it first" in swarm("post", "run", "x", "--as", "ada", check=5)


def test_only_a_person_can_approve_a_warning(folder: RunFolder, swarm: Command) -> None:
    swarm("invite", "boss", "--role", "admin")
    for words in (("--as", "ada"), ("--as", "boss"), ()):
        swarm("approve", "run", *words)
    with Client(folder, "ada") as ada:
        ada.append(ev.Approve(ref="run", person=True))
    said = [(e.author, e.event.person) for e in entries(folder) if isinstance(e.event, ev.Approve)]
    assert said == [("ada", None), ("boss", True), (user_name(), True), ("ada", None)]
