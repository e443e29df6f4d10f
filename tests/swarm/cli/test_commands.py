"""The words of the command line: whose they are, once is once, and data where somebody asks for data."""

from __future__ import annotations

import json
import math
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

import toon
from swarm import Agent
from swarm import events as ev
from swarm.access.checked import checked
from swarm.access.client import Client, split_reason
from swarm.cli import app
from swarm.errors import Refused, UserError
from swarm.log import Log, LogWriter, run_is_alive
from swarm.planning.starting import resume
from swarm.rundir import RunFolder, find, user_name
from swarm.weights import ADAPTER_FILES, adapter_sha256
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, entries, kinds, opened, state, wait_for
from tests.swarm.story import Story

COMMANDS: dict[str, click.Command] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WRITING = (
    "task", "claim", "renew", "hand", "done", "drop", "promote", "post", "amend", "object", "approve", "review",
    "stop", "pause", "resume", "invite", "revoke",
)  # fmt: skip
READING = ("inbox", "log", "digest")
Command = Callable[..., Any]

LOSSES = ("--figure", "eval_loss=0.5", "--figure", "base_eval_loss=2")
JUDGE = ("done", "a", "--token", "3", "--verdict", "SUCCESS")


@pytest.fixture
def swarm(folder: RunFolder) -> Command:
    """A command in the run; its data."""

    def command(*words: str, status: int = 0) -> Any:
        done = CliRunner().invoke(app, [*words, *place(words[0], folder), "--json"])
        assert done.exit_code == status, (words, done.output, done.exception)
        return str(done.exception) if isinstance(done.exception, Refused) else json.loads(done.stdout)

    return command


def place(command: str, folder: RunFolder) -> list[str]:
    takes_option = any("--run" in parameter.opts for parameter in COMMANDS[command].params)
    return ["--run", str(folder.path)] if takes_option else [str(folder.path)]


@pytest.mark.parametrize("name", [*WRITING, *READING])
def test_every_event_is_recorded_under_a_name_and_answered_with_data(name: str) -> None:
    options = {word for parameter in COMMANDS[name].params for word in [*parameter.opts, *parameter.secondary_opts]}
    assert {"--as", "--json", "--toon"} <= options
    assert ("--idem" in options) == (name in WRITING)


def test_a_run_is_named_by_its_place_or_by_option_and_not_as_two(tmp_path: Path, folder: RunFolder) -> None:
    other = opened(tmp_path, "other")
    words = ("status", "log", "export", "digest", "replay", "lineage")
    for command in words:
        place, option, both = (
            CliRunner().invoke(app, [command, *said])
            for said in (
                [str(folder.path)], ["--run", str(folder.path)], [str(folder.path), "--run", f"{folder.path}/"],
            )
        )  # fmt: skip
        assert place.exit_code == 0 and place.stdout == option.stdout == both.stdout, command
    verified = CliRunner().invoke(app, ["log", "verify", "--run", str(folder.path)])
    assert verified.exit_code == 0 and f"{folder.log}: 1 entries" in verified.stderr
    for command in (*words, "watch", "resume", "stop"):
        done = CliRunner().invoke(app, [command, str(folder.path), "--run", str(other.path)])
        assert isinstance(done.exception, UserError) and "another run" in str(done.exception), command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("claim", "a", "--ttl", "0.5"), "claim: ttl: 0.5 s is out of range; take 3 to 604800 seconds"),
        (("claim", "a", "--ttl", "inf"), "claim: ttl: inf s is out of range"),
        (("claim", "a", "--ttl", "nan"), "claim: ttl: nan s is out of range"),
        (("renew", "a", "--token", "3", "--ttl", "604801"), "renew: ttl: 604801 s is out of range"),
        (("hand", "a", "--token", "3", "--to", "eve", "--ttl", "0"), "hand: ttl: 0 s is out of range"),
        (("done", "a", "--token", "3", "--figure", "bleu=0.3"), "--figure: is part of a verdict; add --verdict"),
        ((*JUDGE, "--figure", "0.3"), "--figure: '0.3' is no NAME=VALUE; write e.g. --figure eval_loss=0.41"),
        ((*JUDGE, "--figure", "eval_loss=low"), "--figure: 'low' is no number"),
        ((*JUDGE, "--figure", "Loss=1"), "--figure: 'Loss' is no name of a figure: [a-z][a-z0-9_]*"),
        ((*JUDGE, "--figure", "tok=1"), "--figure: 'tok' is no name of a figure"),
        (("done", "a", "--token", "3", "--verdict", "FAIL", "--rc", "1"), "--rc: a verdict is a result"),
        (("claim", "a", "--wait", "nan"), "claim: wait: nan s is not a time to wait; take 0 seconds or more"),
        (("claim", "a", "--wait", "-1"), "claim: wait: -1 s is not a time"),
        (("claim", "a", "--wait", "inf"), "claim: wait: inf s is not a time"),
        (("post", "a", "which?", "--ask", "bob", "--wait", "nan"), "ask: wait: nan s is not a time"),
        (("review", "a", "?", "--between", "bob", "--answer-seconds", "nan"), "--answer-seconds: nan s is not a time"),
        (
            ("drop", "a", "--token", "3", "--idem", "bad key"),
            "drop: idem: 'bad key' is not valid; an idempotency key is",
        ),
        (("export", "--stream", "zz"), "--stream: there is no stream 'zz'; there is a"),
        (("log", "--stream", "zz"), "--stream: there is no stream 'zz'; there is a"),
        (("export", "--tokens", "--format", "csv"), "--tokens: compares all forms"),
        (("export", "--tokens", "--follow"), "--tokens: compares all forms"),
        (("export", "--tokens", "--what", "losses"), "--what: 'losses' is not known"),
    ],
)
def test_an_invalid_argument_is_an_error_whoever_holds_the_task(
    folder: RunFolder, words: tuple[str, ...], told: str
) -> None:
    with Agent("bob", folder.path) as bob:
        bob.task("a")
        bob.take("a", ttl_seconds=60)
    done = CliRunner().invoke(app, [*words, "--run", str(folder.path)])
    assert isinstance(done.exception, UserError) and not isinstance(done.exception, Refused)
    assert told in str(done.exception)
    assert kinds(folder) == ["post", "task", "claim"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("task", "a", "--as", ""), "--as: '' is not a valid name"),
        (("digest", "--as", ""), "--as: '' is not a valid name"),
        (("open", "plan", "--as", ""), "--as: '' is not a valid name"),
        (("open", "plan", "--as", "../eve"), "--as: '../eve' is not a valid name"),
        (("task", "a", "--run", ""), "RUN: '' names no run; name one, or leave it out"),
        (("inbox", "--run="), "RUN: '' names no run"),
        (("ask", "how many?", "--run", ""), "RUN: '' names no run"),
        (("status", ""), "RUN: '' names no run"),
        (("status", "--run", ""), "RUN: '' names no run"),
        (("log", "verify", ""), "RUN: '' names no run"),
    ],
)
def test_an_empty_word_is_none_and_does_not_stand_for_the_owner_or_the_newest_run(
    tmp_path: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)  # the only run is the one that would be taken
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, UserError) and told in str(done.exception)
    assert kinds(folder) == ["post"] and list((tmp_path / "runs").iterdir()) == [folder.path]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("post", "run", "done", "--wait", "3"), "--wait: waits for an answer, and nobody is asked; add --ask NAME"),
        (("post", "run", "which?", "--ask", "bob", "--of", "1"), "--of: answers an entry, and --ask puts a question; use"),
        (("post", "run", "which?", "--ask", "ada"), "ask: ada is you; ask somebody else, or post a note"),
        (("post", "run", "which?", "--ask", ""), "post: asks: '' is not valid; a name is"),
        *(
            ((*words, option, seq), f"entry {seq}: there is no such entry; see `swarm log`")
            for words, option in (
                (("post", "run", "seen"), "--of"), (("object", "run", "no"), "--of"), (("approve", "run"), "--of"),
                (("amend", "--idem", "k"), "--"),
            )
            for seq in ("0", "999")
        ),
        (("amend", "--", "-5"), "entry -5: there is no such entry"),
    ],
)  # fmt: skip
def test_words_that_would_do_nothing_or_name_nothing_are_wrong_words(
    folder: RunFolder, words: tuple[str, ...], told: str
) -> None:
    more = ["more than that"] if words[0] == "amend" else []
    done = CliRunner().invoke(app, [words[0], "--run", str(folder.path), "--as", "ada", *words[1:], *more])
    assert isinstance(done.exception, UserError) and getattr(done.exception, "status", 2) == 2
    assert str(done.exception).startswith(told) and "\n" not in str(done.exception)
    assert kinds(folder) == ["post"]


def test_what_the_help_says_an_objection_stops_is_what_it_stops(folder: RunFolder, swarm: Command) -> None:
    told = " ".join(CliRunner().invoke(app, ["object", "--help"]).stdout.split())
    assert "a stream, or `run` for whatever is promoted; with --of also a task or `-`" in told
    swarm("task", "data/check", "--as", "ada")
    swarm("object", "data/check", "wrong rows", "--as", "ada", status=1)
    swarm("object", "data/check", "wrong rows", "--of", "2", "--as", "ada")
    swarm("object", "-", "wrong rows", "--of", "2", "--as", "ada")
    assert state(folder).objections("any") == []
    swarm("object", "-", "too early", "--as", "ada", status=1)  # a refusal, which the command line turns into 5
    swarm("object", "run", "too early", "--as", "ada")
    assert state(folder).objections("any") == [("ada", "too early")]


def test_a_corrected_message_and_an_open_question_are_shown_whole_in_every_form(
    folder: RunFolder, swarm: Command
) -> None:
    swarm("post", "run", "@zoe take token 5", "--as", "ada")
    swarm("post", "-", "which rate?", "--ask", "zoe", "--as", "ada")
    swarm("amend", "2", "it is token 7", "--as", "ada")
    words = ["inbox", "--as", "zoe", "--run", str(folder.path), "--peek"]
    note, asked, question = CliRunner().invoke(app, words).stdout.splitlines()
    assert note.endswith("post run ada  @zoe take token 5 · via local  ← amended: 4 by ada: it is token 7")
    assert asked.startswith("question") and "amended" not in asked
    assert (
        question
        == "unanswered 3 from ada about -: which rate?  (`swarm post - '…' --of 3`; `approve` and `object` take --of too)"
    )
    found = swarm("inbox", "--as", "zoe", "--peek")
    assert [(m["text"], m["amended"]) for m in found["messages"]] == [
        ("@zoe take token 5", "4 by ada: it is token 7"), ("asks zoe · which rate?", None),
    ]  # fmt: skip
    assert found["questions"] == [{"seq": 3, "ref": "-", "by": "ada", "text": "which rate?", "amended": None}]
    assert toon.decode(CliRunner().invoke(app, [*words, "--toon"]).stdout) == found
    assert (
        swarm("digest", "--as", "zoe")["unread"][-1]["text"] == "amended: 4 by ada: it is token 7 ← @zoe take token 5"
    )
    swarm("inbox", "--as", "zoe")
    assert swarm("inbox", "--as", "zoe")["questions"] == found["questions"]


def test_a_faults_place_is_a_line_or_a_byte_and_its_entry_is_named_once(folder: RunFolder) -> None:
    with LogWriter.open(folder.log) as writer:
        for number in range(3):
            writer.append([("ada", ev.Post(ref="run", body=f"note {number}"))])
    log, wal = folder.log, folder.path / "collaboration/wal"
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b"note 1", b"note I"))
    words = ["log", "verify", "--run", str(folder.path)]
    line = whole[: whole.index(b"##### 3 ")].count(b"\n") + 1
    changed = f"COLLABORATION.md:{line}: entry 3 (or text that it seals) is changed or missing\n"
    assert CliRunner().invoke(app, words).stdout == changed
    log.write_bytes(whole[: whole.index(b"##### 4 ")])
    assert ": entry 4: the last " in CliRunner().invoke(app, words).stdout
    log.write_bytes(whole)
    wal.write_bytes(wal.read_bytes() + b"torn")
    torn = r"collaboration/wal, byte [1-9]\d+: entry 5: the write-ahead file is changed or torn here\n"
    assert re.fullmatch(torn, CliRunner().invoke(app, words).stdout)


def test_a_log_that_cannot_take_an_entry_is_reported_with_one_way_out(folder: RunFolder) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Client(folder, "ada") as ada:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no file can grow
        try:
            with pytest.raises(UserError, match=r"no space to append .*; free some space and try again$"):
                ada.append(ev.Post(ref="run", body="a note"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        ada.append(ev.Post(ref="run", body="another"))
        (folder.path / "collaboration/wal").write_bytes(b"nothing that anybody wrote")
        folder.log.write_bytes(folder.log.read_bytes().replace(b"another", b"AnotheR"))
        with pytest.raises(UserError, match=r"; `swarm log verify` lists what is$"):
            ada.append(ev.Post(ref="run", body="a third"))
    assert split_reason("the history was rewritten") == ("the history was rewritten", "see `swarm log`")


@pytest.mark.parametrize("words", [("prune", "--keep", "-1"), ("show", "x.yaml", "--rows", "-3")])
def test_a_negative_number_is_a_usage_error(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_the_first_words_about_each_command_are_shown_whole_on_a_narrow_screen() -> None:
    told = CliRunner().invoke(app, ["--help"], terminal_width=78).stdout.partition("Commands:")[2]  # 2 are a margin
    assert all(f"  {name} " in told for name in COMMANDS)
    assert "..." not in told


def test_what_is_sent_again_with_its_key_is_recorded_once(folder: RunFolder, swarm: Command) -> None:
    story = Story("wide", "narrow")
    story.scored("wide", 0.5)
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    said = [
        ("task", "a", "look"),
        ("claim", "a"),
        ("renew", "a", "--token", "TOKEN", "--ttl", "50"),
        ("hand", "a", "--token", "TOKEN", "--to", "bob"),
        ("post", "run", "which rate?", "--ask", "bob"),
        ("post", "run", "a note"),
        ("amend", "1", "more than that"),
        ("object", "wide", "too early"),
        ("approve", "wide"),
        ("pause", "narrow"),
        ("resume", "--stream", "narrow"),
        ("stop", "--stream", "narrow"),
        ("task", "b"),
        ("claim", "b"),
        ("drop", "b", "--token", "TOKEN", "--why", "later"),
        ("task", "c"),
        ("claim", "c"),
        ("done", "c", "--token", "TOKEN", "--file", str(folder.log)),
        ("stop", "--no-wait"),
    ]
    token = ""
    for number, words in enumerate(said):
        line = [word.replace("TOKEN", token) for word in words]
        first, again = (swarm(*line, "--as", "ada", "--idem", f"key-{number}") for _ in range(2))
        assert (first.get("seq"), first.get("token")) == (again.get("seq"), again.get("token")), words
        token = str(first.get("token", token))
    ours = [entry for entry in entries(folder) if entry.author == "ada"]
    assert [entry.event.kind for entry in ours] == [words[0] for words in said]
    assert [entry.event.idem for entry in ours] == [f"key-{number}" for number in range(len(said))]


def test_a_claim_that_is_repeated_after_its_lease_is_refused(folder: RunFolder, swarm: Command) -> None:
    swarm("task", "a", "--as", "ada")
    claimed = swarm("claim", "a", "--as", "ada", "--idem", "mine")
    assert swarm("claim", "a", "--as", "ada", "--idem", "mine") == claimed
    swarm("drop", "a", "--token", str(claimed["token"]), "--as", "ada")
    for _ in range(2):
        refused = swarm("claim", "a", "--as", "ada", "--idem", "mine", status=1)
        assert "the claim of the key mine (token 3) is over" in refused
        swarm("claim", "a", "--as", "bob")


def test_a_key_that_is_used_for_other_words_is_refused(folder: RunFolder, swarm: Command) -> None:
    seq = swarm("post", "run", "one", "--as", "ada", "--idem", "k")["seq"]
    assert swarm("post", "run", "one", "--as", "ada", "--idem", "k")["seq"] == seq
    assert "the key k stands for post run" in swarm("post", "run", "two", "--as", "ada", "--idem", "k", status=1)


def judging(swarm: Command, verdict: str, *words: str) -> tuple[str, ...]:
    token = str(swarm("claim", "wide/validate", "--as", "ada")["token"])
    return ("done", "wide/validate", "--token", token, "--verdict", verdict, "--as", "ada", *words)


def test_a_verdict_that_is_sent_again_needs_no_weights_any_more(
    folder: RunFolder, swarm: Command, candidate: Path
) -> None:
    words = judging(swarm, "SUCCESS", *LOSSES, "--figure", "bleu=31.5", "--idem", "judged")
    first = swarm(*words)
    (candidate / ADAPTER_FILES[1]).unlink()
    assert swarm(*words) == first
    [verdict] = [entry.event for entry in entries(folder) if isinstance(entry.event, ev.Verdict)]
    assert verdict.figures == {"eval_loss": 0.5, "base_eval_loss": 2, "bleu": 31.5}


@pytest.mark.parametrize("gone", ADAPTER_FILES)
def test_files_that_are_gone_can_only_fail_and_the_verdict_bears_the_hash_that_was_promised(
    folder: RunFolder, swarm: Command, candidate: Path, gone: str
) -> None:
    promised = adapter_sha256(candidate)
    (candidate / gone).unlink()
    words = judging(swarm, "SUCCESS", *LOSSES)
    told = str(CliRunner().invoke(app, [*words, "--run", str(folder.path)]).exception)
    assert f"{gone}: cannot be read (No such file or directory); judge it where it is whole, or say FAIL" in told
    assert "verdict" not in kinds(folder)
    swarm(*judging(swarm, "FAIL"))
    [verdict] = [entry.event for entry in entries(folder) if isinstance(entry.event, ev.Verdict)]
    assert (verdict.result, verdict.sha256) == ("FAIL", promised)


@pytest.mark.parametrize("verdict", ["SUCCESS", "WARNING"])
@pytest.mark.parametrize("figures", [(), LOSSES[:2], LOSSES[2:]])
def test_a_verdict_of_success_states_what_was_measured(
    folder: RunFolder, swarm: Command, candidate: Path, verdict: str, figures: tuple[str, ...]
) -> None:
    words = judging(swarm, verdict, *figures)
    error = CliRunner().invoke(app, [*words, "--run", str(folder.path)]).exception
    assert isinstance(error, UserError) and not isinstance(error, Refused)
    assert f"wide/validate: a {verdict} states eval_loss and base_eval_loss" in str(error)
    assert "verdict" not in kinds(folder)


def test_evidence_is_recorded_with_the_exit_status_of_its_command(folder: RunFolder, swarm: Command) -> None:
    swarm("task", "a", "--as", "ada")
    token = str(swarm("claim", "a", "--as", "ada")["token"])
    said = swarm("done", "a", "--token", token, "--evidence", "toon check rows.toon", "--rc", "3", "--as", "ada")
    done = entries(folder)[-1].event
    assert isinstance(done, ev.Done) and (done.cmd, done.rc) == ("toon check rows.toon", 3)
    assert (said["cmd"], said["rc"]) == ("toon check rows.toon", 3)


def test_a_verdict_keeps_its_evidence_and_finishes_the_task(folder: RunFolder, swarm: Command, candidate: Path) -> None:
    (folder.path / "seen.txt").write_text("it repeats itself\n")
    shown = ("--evidence", "grep -c repeats seen.txt", "--file", "seen.txt", "--note", "it repeats itself")
    said = swarm(*judging(swarm, "FAIL", *shown))
    verdict = entries(folder)[-1].event
    assert isinstance(verdict, ev.Verdict) and (verdict.why, verdict.cmd) == ("it repeats itself", said["cmd"])
    assert (said["kind"], said["path"]) == ("verdict", "seen.txt")
    assert verdict.body == f"shown by seen.txt (sha256 {said['sha256']})"
    assert swarm("claim", "wide/validate", "--as", "bob", status=1).startswith("claim: wide/validate: is done already")


def test_a_roles_task_with_a_failed_command_is_not_done(folder: RunFolder, swarm: Command, candidate: Path) -> None:
    token = swarm("claim", "wide/validate", "--as", "ada")["token"]
    refused = swarm("done", "wide/validate", "--token", str(token), "--rc", "1", "--as", "ada", status=1)
    assert "exit status 1 is not done; `swarm drop` gives it back" in refused


def test_a_promotion_that_is_sent_again_places_nothing_twice(folder: RunFolder, swarm: Command) -> None:
    story = Story("wide")
    story.scored("wide", 0.5)
    adapter = story.state.streams["wide"].adapter
    assert adapter is not None
    promoted = ev.Promote(ref="wide", path="promoted", sha256=adapter.sha256, why="best", idem="release")
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
        [entry] = writer.append([(user_name(), promoted)])
    assert swarm("promote", "wide", "--idem", "release")["seq"] == entry.seq
    assert not folder.promoted.exists()


def test_a_key_that_stands_for_something_else_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    configure(tmp_path, folder)
    with Client(folder, "ada") as ada:
        ada.append(ev.Post(ref="run", body="x", idem="one"))
        with pytest.raises(Refused, match="the key one stands for post run"):
            resume(folder, "ada", idem="one")


def test_the_log_read_under_a_name_marks_what_is_addressed_to_it(folder: RunFolder, swarm: Command) -> None:
    mine = swarm("post", "run", "a note", "--as", "ada")["seq"]
    swarm("post", "run", "look @ada", "--as", "bob")
    swarm("post", "run", "which?", "--ask", "ada", "--as", "bob")
    swarm("post", "run", "seen", "--of", str(mine), "--as", "bob")
    swarm("post", "run", "@ada to myself", "--as", "ada")
    assert [entry["why"] for entry in swarm("log", "--as", "ada")["entries"]] == [
        None, None, "mention", "question", "answer", None,
    ]  # fmt: skip
    assert "why" not in swarm("log")["entries"][0]
    lines = CliRunner().invoke(app, ["log", str(folder.path), "--as", "ada", "--tail", "3"]).stdout.splitlines()
    assert [line.rpartition("  ← ")[2] for line in lines[:2]] == ["question", "answer"]
    assert "←" not in lines[2]


def test_a_digest_is_the_same_data_in_either_form(folder: RunFolder, swarm: Command) -> None:
    swarm("post", "run", "look @ada", "--as", "bob")
    found = swarm("digest", "--as", "ada")
    assert found["unread"] == [{"seq": 2, "by": "bob", "ref": "run", "text": "look @ada"}]
    plain, as_toon = (
        CliRunner().invoke(app, ["digest", str(folder.path), "--as", "ada", *form]).stdout for form in ([], ["--toon"])
    )
    assert plain == as_toon
    assert toon.decode(plain) == found


@pytest.mark.parametrize("command", [*WRITING[:1], *READING])
def test_a_name_that_is_none_makes_no_folder(folder: RunFolder, command: str) -> None:
    words = ["a"] if command == "task" else []
    done = CliRunner().invoke(app, [command, *words, *place(command, folder), "--as", "../eve"])
    assert "'../eve' is not a valid name" in str(done.exception)
    assert not (folder.path / "eve").exists() and not (folder.path / "agents").exists()


@pytest.mark.timeout(120)
def test_a_run_that_ended_or_was_cut_off_goes_on_under_the_name_of_who_wished_it_and_once(
    tmp_path: Path, folder: RunFolder
) -> None:
    configure(tmp_path, folder, 'roles: {prepare: ["agent:ada"]}\nroles_wait_seconds: 600\n')  # so nothing is trained
    story = Story("wide")
    story.say("coordinator", ev.Fail(ref="wide", why="its base was missing"))
    story.say("coordinator", ev.End(ref="run", rc=1))
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    try:
        words = ("resume", str(folder.path), "--detach", "--as", "ada", "--idem", "again", "--json")
        first, again = (json.loads(sp.swarm(*words, cwd=tmp_path).stdout) for _ in range(2))
        assert first == again == {"seq": len(story.entries) + 2, "kind": "resume", "ref": "run", "by": "ada"}
        assert [(e.event.ref, e.author) for e in entries(folder) if e.event.kind == "resume"] == [
            ("run", "ada"), ("wide", "ada"),
        ]  # fmt: skip
        assert state(folder).end is None and not state(folder).streams["wide"].failed
        os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
        wait_for(lambda: not run_is_alive(folder.log))
        sp.swarm("resume", str(folder.path), "--detach", "--as", "bob", cwd=tmp_path)
        assert run_is_alive(folder.log)
        assert [e.author for e in entries(folder) if e.event.kind == "resume"] == ["ada", "ada", "bob"]
    finally:
        for _ in sp.end_everything(tmp_path):
            pass


def test_the_newest_log_is_the_one_that_was_opened_or_started_last(tmp_path: Path) -> None:
    first = opened(tmp_path, "zz")
    configure(tmp_path, first)
    for name in ("mm", "aa", "kk"):
        time.sleep(0.02)
        newest = opened(tmp_path, name)
        assert find(None, tmp_path / "runs") == newest
    with Client(first, "ada") as ada:
        ada.append(ev.Post(ref="run", body="a word in an older one"))
    assert find(None, tmp_path / "runs") == newest


def test_a_log_in_which_no_run_was_started_can_be_looked_at_and_not_steered(folder: RunFolder, swarm: Command) -> None:
    swarm("task", "qa/look", "look", "--as", "ada")
    token = swarm("claim", "qa/look", "--as", "ada")["token"]
    [task] = swarm("status")["tasks"]
    assert (task["task"], task["state"], task["by"], task["token"]) == ("qa/look", "held", "ada", token)
    assert swarm("replay")["at"] == token
    assert swarm("lineage")["adapters"] == []
    assert "no run was started here yet" in swarm("stop", status=1)
    with pytest.raises(UserError, match="no run was started in it yet"):
        resume(folder, "ada")
    assert kinds(folder) == ["post", "task", "claim"]


def test_a_run_whose_stream_is_named_like_an_agents_task_is_refused_before_anything_is_written(
    folder: RunFolder, tmp_path: Path
) -> None:
    with Client(folder, "ada") as ada:
        ada.append(ev.Task(ref="wide"))
    path = sp.write_config(tmp_path, streams="  wide: {lora_r: 2}")
    done = sp.swarm("run", str(path), "--in", str(folder.path), "--detach", cwd=tmp_path, check=2)
    assert "streams.wide" in done.stderr
    assert not folder.config.exists()


def test_an_unknown_figure_is_refused_by_the_command(folder: RunFolder) -> None:
    with pytest.raises(UserError, match="eval_loss: nan is not a number"):
        checked(ev.Verdict, ref="wide/validate", tok=3, figures={"eval_loss": math.nan})
    with pytest.raises(UserError, match="loss: inf is not a number"):
        checked(ev.Checkpoint, ref="wide/train", tok=3, step=1, path="x", sha256="a" * 64, figures={"loss": math.inf})


def test_after_the_clock_was_set_back_a_dead_holders_lease_ends_when_its_seconds_are_over(folder: RunFolder) -> None:
    with LogWriter.open(folder.log, clock=lambda: time.time() + 86400) as writer:
        writer.append([("bob", ev.Task(ref="qa/look"))])
    with Client(folder, "dead") as dead:
        dead.append(ev.Claim(ref="qa/look", ttl=3))
    with Client(folder, "ada") as ada:
        with pytest.raises(Refused, match=r"held by dead \(token \d\) for [0-3] s"):
            ada.append(ev.Claim(ref="qa/look", ttl=3))
        time.sleep(3.5)
        ada.append(ev.Claim(ref="qa/look", ttl=60))
    log = Log(folder.log)
    last = log.refresh()[-1]
    assert 0 <= log.now() - last.time < 5


def test_a_typed_note_is_nobodys_until_somebody_amends_it(folder: RunFolder, swarm: Command) -> None:
    with folder.log.open("a") as file:
        file.write("I saw a spike\n")
    swarm("task", "qa/look", "--as", "ada")
    [note] = [entry for entry in swarm("log")["entries"] if entry["author"] == "unknown"]
    assert "amended" not in note
    seq = swarm("amend", str(note["seq"]), "that was me", "--as", "bob")["seq"]
    [note] = [entry for entry in swarm("log")["entries"] if entry["author"] == "unknown"]
    assert note["amended"] == f"{seq} by bob"
