"""What reaches an agent's inbox, and how far it has read."""

from __future__ import annotations

import multiprocessing
from collections import Counter

import pytest

from swarm import Agent
from swarm import events as ev
from swarm.agents.inbox import mentioned, waiting_for
from swarm.errors import UserError
from swarm.rundir import RunFolder
from tests.swarm.places import opened
from tests.swarm.story import START, Story, settings


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@ada look", {"ada"}),
        ("look, @ada.", {"ada"}),
        ("(@ada)", {"ada"}),
        ("@ada-2 and @bob_1!", {"ada-2", "bob_1"}),
        ("mail ada@bob.example is no mention", set()),
        ("@@ada is none either", set()),
        ("@Ada is another", set()),
    ],
)
def test_a_name_after_an_at_sign_is_a_mention(text: str, names: set[str]) -> None:
    assert {name.rstrip("._-") for name in mentioned(text)} == names


def test_everything_addressed_to_an_agent_reaches_it_and_nothing_else(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        mine = ada.post("my note")
        bob.post("@ada look at this")
        bob.post("nothing for anybody")
        bob.object("run", "wrong unit", of=mine)
        bob.ask("ada", "which unit?")
        bob.post("an answer", of=mine)
        ada.post("@ada a note to myself")
        ada.task("a")
        bob.claim("a").hand("ada")
        found = ada.inbox()
    assert [message.why for message in found.messages] == ["mention", "object", "question", "answer", "handed"]
    assert [(q.entry.author, q.text) for q in found.questions] == [("bob", "which unit?")]
    assert [ref for ref, _, _ in found.held] == ["a"]


def test_a_name_in_a_title_or_a_reason_is_a_mention_too(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("d/z", "for @bob")
        ada.object("run", "@bob please look")
        ada.claim("d/z").drop("@bob knows more about it")
        told = [(message.why, message.text) for message in bob.inbox().messages]
    assert told == [
        ("mention", "for @bob"),
        ("mention", "@bob please look"),
        ("mention", "given back: @bob knows more about it"),
    ]


def test_what_was_corrected_is_handed_out_with_its_newest_correction_and_only_once(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob, Agent("zoe", folder.path) as zoe:
        wrong = ada.post("@zoe take token 5")
        asked, _ = ada.ask("zoe", "of which task?")
        half = ada.amend(wrong, "it is token 6")
        right = bob.amend(half, "it is token 7")
        [note, question] = zoe.inbox().messages
        assert (note.entry.seq, note.amended) == (wrong, f"{right} by bob: it is token 7")
        assert (question.why, question.amended) == ("question", "")
        by = ada.amend(asked, "of which stream?")
        assert [(m.why, m.entry.seq, m.text) for m in zoe.inbox().messages] == [
            ("corrected", by, f"of entry {asked} · of which stream?")
        ]
        [still] = zoe.inbox().questions
        assert (still.entry.seq, still.text, still.amended) == (
            asked,
            "of which task?",
            f"{by} by ada: of which stream?",
        )


def test_a_correction_that_is_itself_addressed_or_concerns_an_own_entry_comes_by_itself(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("zoe", folder.path) as zoe:
        own, note = zoe.post("2e-3"), ada.post("take token 5")
        of_own, named = ada.amend(own, "1e-3"), ada.amend(note, "@zoe it is token 6")
        again, by_zoe = ada.amend(named, "no, 7"), zoe.amend(note, "I take 7")
        found = zoe.inbox().messages
        assert [(m.why, m.entry.seq, m.amended) for m in found] == [
            ("amend", of_own, ""), ("mention", named, f"{again} by ada: no, 7"),
        ]  # fmt: skip
        assert by_zoe not in {m.entry.seq for m in zoe.inbox(since=0).messages}


def test_the_cursor_moves_on_and_a_look_leaves_it_alone(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        first = bob.post("@ada one")
        assert len(ada.inbox(peek=True).messages) == 1
        assert len(ada.inbox().messages) == 1
        bob.post("@ada two")
        assert len(ada.inbox(since=0).messages) == 2
        assert [m.entry.event.body for m in ada.inbox().messages] == ["@ada two"]
        assert ada.inbox().messages == []
        assert len(ada.inbox(since=first).messages) == 1


def _read(path: str, found: object) -> None:
    with Agent("ada", path) as ada:
        for _ in range(10):
            for message in ada.inbox().messages:
                found.put(message.entry.seq)  # type: ignore[attr-defined]


def test_two_processes_under_one_name_share_the_messages_and_miss_none(folder: RunFolder) -> None:
    context = multiprocessing.get_context("spawn")
    found = context.SimpleQueue()
    with Agent("bob", folder.path) as bob:
        sent = {bob.post(f"@ada {n}") for n in range(5)}
        readers = [context.Process(target=_read, args=(str(folder.path), found)) for _ in range(2)]
        for reader in readers:
            reader.start()
        sent |= {bob.post(f"@ada {n}") for n in range(5)}
        for reader in readers:
            reader.join()
    with Agent("ada", folder.path) as ada:
        late = [message.entry.seq for message in ada.inbox().messages]
    read: list[int] = []
    while not found.empty():
        read.append(found.get())
    assert Counter([*read, *late]) == Counter(sent)


def test_a_cursor_that_is_no_number_is_reported_and_not_guessed(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada:
        ada.inbox()
        (folder.path / "agents" / "ada" / "inbox").write_text("soon\n")
        with pytest.raises(UserError, match="is no seq"):
            ada.inbox()


def test_a_task_that_the_config_keeps_for_an_agent_waits_in_its_inbox() -> None:
    story = Story("wide")
    story.prepared("wide")
    kept = settings("wide").model_copy(update={"roles": {"train": ["agent:ada", "worker"]}, "roles_wait_seconds": 90.0})
    done_at = START + len(story.entries) - 1
    assert waiting_for(story.state, kept, "ada") == [("wide/train", done_at + 90.0)]
    assert waiting_for(story.state, kept, "bob") == []
    story.claim("wide/train", "ada")
    assert waiting_for(story.state, kept, "ada") == []


def test_the_inbox_reports_a_lease_that_others_ended_to_its_holder(folder: RunFolder) -> None:
    with Agent("ada", folder.path) as ada, Agent("bob", folder.path) as bob:
        ada.task("a")
        ada.append(ev.Claim(ref="a", ttl=1))
        bob.claim("a", wait_seconds=10).let_go()
        assert [message.why for message in ada.inbox().messages] == ["lost"]


def test_a_folder_without_a_run_has_an_inbox_too(tmp_path: object) -> None:
    folder = opened(tmp_path)  # type: ignore[arg-type]
    with Agent("ada", folder.path) as ada:
        assert ada.inbox().waiting == []
