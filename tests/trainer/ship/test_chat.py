"""Talking to adapters: history, switching, settings and wrong words; with a terminal in tmux, without one line by line."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.errors import UserError
from tests.runs.test_terminal import Terminal
from tests.trainer import tiny
from trainer.bases import EMBEDDED_FOLDER
from trainer.place import Place
from trainer.ship import chat as chatting
from trainer.ship.answering import Sampling
from trainer.ship.chat import Chat, converse
from trainer.ship.models import Models
from trainer.ship.sources import sources_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def models(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tiny.save_adapter(base, tmp_path_factory.mktemp("adapters") / "tuned", std=0.5)
    bare = tiny.save_adapter(base, folder.with_name("plain"), std=0.5, seed=4)
    (bare / "prompt.json").write_text('{"chat_template": null, "separator": " => ", "stop_tokens": [2]}')
    return Models(sources_of([str(folder), str(bare)]), Place(Path(), "cpu"))


@pytest.fixture
def chat(models: Models) -> Chat:
    return Chat(models, "tuned", Sampling(5, temperature=1.0, seed=1), [])


def test_each_message_is_asked_with_what_was_said_before_and_can_be_taken_back(chat: Chat, capsys: Said) -> None:
    chat.say("one")
    first = list(chat.turns)
    chat.say("two")
    assert [turn["role"] for turn in chat.turns] == ["user", "assistant"] * 2
    assert len(chat.models.asker("tuned").conversation(chat.turns)) > len(
        chat.models.asker("tuned").conversation(first)
    )
    assert capsys.readouterr().out == "".join(
        f"{turn['content']}\n" for turn in chat.turns if turn["role"] == "assistant"
    )
    chat.command("/undo")
    assert chat.turns == first
    chat.command("/set seed 9")
    chat.command("/again")
    assert chat.turns[0] == first[0] and chat.turns[1] != first[1]
    chat.command("/system be brief")
    assert chat.turns == [{"role": "system", "content": "be brief"}]


def test_another_model_goes_on_with_the_same_conversation_and_one_without_template_is_asked_each_question_alone(
    chat: Chat, capsys: Said
) -> None:
    chat.say("one")
    chat.command(f"/use {chat.models.names[0]}")
    chat.say("two")
    assert len(chat.turns) == 4
    chat.command("/use plain")
    chat.say("three")
    assert [turn["content"] for turn in chat.turns if turn["role"] == "user"] == ["three"]
    chat.command("/models")
    assert "* plain" in capsys.readouterr().err
    chat.command("/system be brief")
    with pytest.raises(UserError, match=r"asked one question at a time; .*/new"):
        chat.say("four")


def test_what_cannot_be_done_is_said_and_changes_nothing(chat: Chat, tmp_path: Path) -> None:
    chat.say("one")
    before = list(chat.turns)
    refused = {
        "/nope": "/nope: is no command",
        "/use nobody": "/use: there is no 'nobody'; take one of",
        "/set temperature hot": "'hot' is no number",
        "/set temperature -1": "out of range",
        "/set top_p 0": "out of range",
        "/set colour 3": "there is no 'colour'",
        "/save": "names no file",
        f"/save {tmp_path}/no/such": "cannot be written",
        "/all": "asks nothing",
    }
    for line, what in refused.items():
        with pytest.raises(UserError, match=what):
            chat.command(line)
    with pytest.raises(UserError, match="the question has about"):
        chat.say("long " * 400)
    assert chat.turns == before
    chat.command(f"/save {tmp_path}/kept.jsonl")
    assert json.loads((tmp_path / "kept.jsonl").read_text()) == {"messages": before}


def test_without_a_terminal_each_line_is_a_message_and_only_answers_are_written(
    chat: Chat, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\n//slash\n/use nobody\n/quit\nnever\n"))
    assert converse(chat) == 2, "one line could not be carried out"
    assert [turn["content"] for turn in chat.turns if turn["role"] == "user"] == ["one", "/slash"]
    told = capsys.readouterr()
    assert "nobody" in told.err and "nobody" not in told.out
    assert chatting.main(["/nowhere"]) == 2


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: apt-get install tmux")
def test_in_a_terminal_one_talks_switches_ends_an_answer_and_leaves(terminal: Terminal, tmp_path: Path) -> None:
    tiny.save_adapter(EMBEDDED_FOLDER, tmp_path / "tuned", std=0.3)
    command = f"{sys.executable} -P -m swarm.cli"
    terminal.type(f"{command} chat ./tuned --temperature 3 --max-new-tokens 900; echo status $?")
    terminal.wait_for("tiny-toon, tuned; tuned answers; /help lists the commands", "tuned>")
    terminal.type("a long story")
    terminal.wait_for("a long story\n")
    terminal.press("C-c")
    terminal.wait_for("ended by you]")
    terminal.type("/use tiny-toon")
    terminal.wait_for("tiny-toon>")
    terminal.press("C-d")
    terminal.wait_for("status 0")
