"""`swarm rate` (G28): ratings by id and by lines; what cannot be recorded is refused with its place, and then nothing is."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm import answers
from swarm.cli import app
from swarm.errors import UserError
from swarm.log import Log, LogWriter
from swarm.rundir import RunFolder
from swarm.state import State, fold
from tests.swarm.places import configure, opened
from tests.swarm.story import Story

ROW = {"answer": "chatcmpl-1", "rating": 2}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that has published an adapter, and keeps one answer of it."""
    made = opened(tmp_path)
    configure(tmp_path, made, "feedback: {least: 3}\n")
    story = Story("wide")
    story.scored("wide", 0.5)
    with LogWriter.open(made.log) as writer:
        writer.append([(entry.author, entry.event) for entry in story.entries])
    answers.prepare(made)
    answers.keep(made, "chatcmpl-1", "wide", [{"role": "user", "content": "say 1"}], "two")
    monkeypatch.chdir(tmp_path)
    return made


def rate(*words: str, lines: str = "") -> str:
    """What it prints, or why it refuses."""
    done = CliRunner().invoke(app, ["rate", *words], input=lines)
    if isinstance(done.exception, UserError):
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def state(folder: RunFolder) -> State:
    return fold(Log(folder.log).entries())


def test_an_answer_is_rated_by_its_id_and_again_and_its_row_is_what_it_should_have_been(folder: RunFolder) -> None:
    assert rate("chatcmpl-1", "2", "--because", "it is wrong").endswith(" rate chatcmpl-1 2\n")
    assert json.loads(rate("-", "--json", lines=json.dumps({**ROW, "better": "1"}) + "\n"))["answer"] == "chatcmpl-1"
    [rated] = state(folder).ratings.values()
    assert (rated.stream, rated.rating, rated.has_better) == ("wide", 2, True)
    rows = answers.write_rows(folder, "retrain-1", ["chatcmpl-1", "chatcmpl-2"]).read_text()
    assert json.loads(rows)["messages"] == [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "1"}]
    assert not list((folder.path / "feedback" / "answers").iterdir()), "it waits no more"


@pytest.mark.parametrize(
    ("words", "lines", "why"),
    [
        (["chatcmpl-1"], "", r"RATING: belongs to one answer; write `swarm rate ANSWER 1\.\.5`"),
        (["chatcmpl-1", "0"], "", r"rate: rating: 0\.0 is not valid .*greater than or equal to 1"),
        (["chatcmpl-1", "1", "--better", " "], "", "better: says nothing; write what the answer should have been"),
        (["chatcmpl-2", "3"], "", r"chatcmpl-2: .* keeps no such answer; the newest 1000 answers of `swarm serve`"),
        (["../../x", "3"], "", r"\.\./\.\./x: is no id of an answer; take the `id` of a response"),
        (["-"], "", "standard input: holds no rating; write a line"),
        (["-"], json.dumps(ROW) + '\n{"answer": 3, "rating": 1}\n', "line 2: is no rating; write"),
        (["-"], json.dumps({**ROW, "stars": 3}), "line 1: is no rating; write"),
        (["-"], json.dumps(ROW) + '\n{"answer": "x", "rating": 6}', "line 2: is no rating; write"),
        (["-"], '{"answer": "x", "rating": "2"}', "line 1: is no rating; write"),
        (["-"], "[" * 5000, "line 1: is no rating; write"),
    ],
)
def test_what_is_no_rating_is_refused_and_nothing_is_recorded(
    folder: RunFolder, words: list[str], lines: str, why: str
) -> None:
    assert re.match(why, rate(*words, lines=lines))
    assert not state(folder).ratings


def test_what_an_answer_should_have_been_is_no_longer_than_anything_that_is_trained_on(folder: RunFolder) -> None:
    row = json.dumps({**ROW, "better": "\U0001f600" * answers.LONGEST}, ensure_ascii=False)
    assert re.match(r"chatcmpl-1: is longer than 1,048,576 characters .*; shorten that", rate("-", lines=row))
    assert not state(folder).ratings
    rate("-", lines=json.dumps({**ROW, "better": "\U0001f600" * (answers.LONGEST - 200)}, ensure_ascii=False))
    assert answers.write_rows(folder, "retrain-1", ["chatcmpl-1"]).stat().st_size > 4_000_000


@pytest.mark.parametrize("text", ["{}", '{"answer": "x", "messages": 3}', "[]"])
def test_a_kept_answer_that_is_none_is_refused_by_its_name(folder: RunFolder, text: str) -> None:
    (folder.path / "feedback" / "rated" / "chatcmpl-7.json").write_text(text)
    with pytest.raises(UserError, match=r"chatcmpl-7\.json: "):
        answers.write_rows(folder, "retrain-1", ["chatcmpl-7"])


@pytest.mark.parametrize(
    "text",
    [
        '{"stream": "../x", "share": 0.5, "seed": 1}',
        '{"stream": "a"}',
        '{"stream": "a", "share": "1", "seed": 1}',
        "[]",
    ],
)
def test_a_canary_that_is_none_is_refused_by_its_name(folder: RunFolder, text: str) -> None:
    answers.write_canary(folder, {"stream": "wide", "share": 0.5, "seed": 7})
    assert answers.canary(folder)["seed"] == 7
    (folder.path / "feedback" / "canary.json").write_text(text)
    with pytest.raises(UserError, match=r"canary\.json: "):
        answers.canary(folder)


def test_only_the_newest_answers_wait_for_a_rating(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "KEPT", 2)
    place = folder.path / "feedback" / "answers"
    for number in range(4):
        answers.keep(folder, f"chat-{number}", "wide", [], "x")
        os.utime(place / f"chat-{number}.json", (number + 1, number + 1))
    os.utime(place / "chatcmpl-1.json", (0, 0))
    answers.keep(folder, "chat-9", "wide", [], "x" * answers.LONGEST)
    answers.forget_oldest(folder)
    assert sorted(path.stem for path in place.iterdir()) == ["chat-2", "chat-3"]


def test_a_run_without_feedback_keeps_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = opened(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert rate("chatcmpl-1", "3") == f"{made.name}: keeps no answers; write `feedback:` into its config"
    assert answers.run_of(made.promoted) is None and answers.canary(made) == {}
