"""The demo's rows: the files in the repository are the generator's, and every answer can be checked."""

import json

import pytest

from toon import decode
from trainer.embedded import demo_data
from trainer.embedded.demo_data import FOLDER, ROWS, Split


def pairs(split: Split) -> list[tuple[str, str]]:
    lines = (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    chats = [json.loads(line)["messages"] for line in lines]
    assert all([message["role"] for message in chat] == ["user", "assistant"] for chat in chats)
    return [(chat[0]["content"], chat[1]["content"]) for chat in chats]


@pytest.mark.parametrize("split", ROWS)
def test_the_files_are_what_the_generator_writes(split: Split) -> None:
    assert (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8") == demo_data.jsonl(split)


def test_no_question_of_the_evaluation_is_trained_on() -> None:
    train, held_out = ([question for question, _ in pairs(split)] for split in ("train", "eval"))
    assert len(set(train)) == len(train) == ROWS["train"]
    assert len(set(held_out)) == len(held_out) == ROWS["eval"]
    assert set(train).isdisjoint(held_out)


def test_every_answer_is_the_value_asked_about() -> None:
    given = [(question.split("\n", 1)[1], answer) for question, answer in pairs("train")]
    in_json = [(payload, answer) for payload, answer in given if payload.startswith(("{", "["))]
    assert len(in_json) > 300
    for payload, answer in in_json:
        assert decode(answer) == json.loads(payload)


def test_the_length_that_a_question_states_is_the_one_in_its_answer() -> None:
    for question, answer in pairs("eval"):
        stated = question.split("\n", 1)[0].removeprefix("convert to toon, length ").removesuffix(":")
        assert f"[{stated}]" in answer


def test_every_answer_holds_a_table_or_a_list_because_only_those_look_new_in_toon() -> None:
    assert all("]" in answer for _, answer in pairs("eval"))


def test_the_demo_asks_about_tables_and_about_nested_records() -> None:
    answers = [answer for _, answer in pairs("eval")]
    assert sum(answer.startswith("[") for answer in answers) >= 20
    assert sum("{" in answer for answer in answers) >= 50
    assert sum(":\n  " in answer and "{" not in answer.split("\n")[0] for answer in answers) >= 5
