"""Reading dataset files: every row knows its place, and what is wrong with one is said in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swarm.errors import UserError
from swarm.settings import Dataset
from trainer.data.bad import BadRow, NotARow
from trainer.data.files import raw_rows
from trainer.data.raw import RawRow
from trainer.data.rows import Chat, Pair, Text, read

ROWS = [{"prompt": "one", "completion": "1"}, {"prompt": "two, or\nso", "completion": "2"}]


def rows_in(path: Path, **options: object) -> list[RawRow | BadRow]:
    return list(raw_rows(Dataset(path=str(path), **options)))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_all_formats_give_the_same_rows(tmp_path: Path) -> None:
    toon = 'rows[2]{prompt,completion}:\n  one,"1"\n  "two, or\\nso","2"\n'
    files = [
        write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        write(tmp_path / "rows.json", json.dumps(ROWS)),
        write(tmp_path / "nested.json", json.dumps({"rows": ROWS})),
        write(tmp_path / "rows.csv", '\ufeffprompt,completion\none,1\n"two, or\nso",2\n'),
        write(tmp_path / "rows.toon", toon),
    ]
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    for path in [*files, tmp_path / "rows.parquet"]:
        assert [row.values for row in rows_in(path)] == ROWS, path


def test_places_are_lines_where_the_format_has_lines(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "a.jsonl", '{"prompt": 1}\n\n{"prompt": 2}\n')
    assert [row.where for row in rows_in(jsonl)] == [f"{jsonl}:1", f"{jsonl}:3"]
    csv = write(tmp_path / "a.csv", 'prompt\n"two\nlines"\nnext\n')
    assert [row.where for row in rows_in(csv)] == [f"{csv}:2", f"{csv}:4"]
    listed = write(tmp_path / "a.json", '[{"prompt": 1}]')
    assert rows_in(listed)[0].where == f"{listed}: row 1"


def test_a_bad_line_names_file_and_line_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n[1]\n{"a": "\xff"}\n{"a": 2}\n')
    rows = rows_in(path)
    assert [type(row).__name__ for row in rows] == ["RawRow", "BadRow", "BadRow", "BadRow", "RawRow"]
    assert str(rows[1]).startswith(f"{path}:2: not JSON (")
    assert str(rows[2]) == f"{path}:3: a JSON list, not an object; write one JSON object per line"
    assert "not UTF-8 at byte 7" in str(rows[3])


def test_a_csv_row_with_too_many_fields_is_a_bad_row(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "prompt,completion\na,b\na,b,c\n")
    assert str(rows_in(path)[1]).startswith(f"{path}:3: 3 fields where the header has 2; quote fields")


def test_fields_of_a_tsv_file_stand_between_tabs_with_their_quotes_as_glue_writes_them(tmp_path: Path) -> None:
    """U11: a quote that begins a sentence is a character of it, and no row swallows those after it."""
    text = '\ufeffQuality\t#1 String\t#2 String\r\n1\t"We won ," he said .\t"We won\r\n\r\n0\tone\r\n0\ta\tb\tc\r\n0\t\tx\r\n'
    path = write(tmp_path / "train.tsv", text)
    first, short, long, last = rows_in(path)
    assert first.values == {"Quality": "1", "#1 String": '"We won ," he said .', "#2 String": '"We won'}
    assert (
        str(short) == f"{path}:4: 2 fields where the header has 3; save it as .csv if fields hold tabs or line breaks"
    )
    assert (long.where, last.where, last.values["#1 String"]) == (f"{path}:5", f"{path}:6", "")


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_what_separates_the_names_of_a_csv_file_separates_its_fields(tmp_path: Path, separator: str) -> None:
    """Spreadsheets of many languages write semicolons, since a comma is their decimal sign."""
    text = 'prompt;completion\n"one; two";1,5\n'.replace(";", separator)
    first, *others = rows_in(write(tmp_path / "x.csv", text))
    assert (first.values, others) == ({"prompt": f"one{separator} two", "completion": "1,5"}, [])


def test_columns_without_a_name_are_called_by_their_number_and_blanks_round_a_name_are_not_of_it(
    tmp_path: Path,
) -> None:
    for name, text in {
        "x.csv": ", prompt,completion ,\n0,a,b,\n",
        "x.tsv": "\t prompt\tcompletion \t\n0\ta\tb\t\n",
    }.items():
        (row,) = rows_in(write(tmp_path / name, text))
        assert row.values == {"column 1": "0", "prompt": "a", "completion": "b", "column 4": ""}


@pytest.mark.parametrize("name", ["ROWS.JSONL", "rows.Csv", "[a] rows.jsonl", "*.jsonl"])
def test_capital_letters_of_an_ending_say_nothing_and_a_files_own_name_is_no_pattern(tmp_path: Path, name: str) -> None:
    text = json.dumps(ROWS[0]) if "jsonl" in name.lower() else "prompt,completion\none,1\n"
    write(tmp_path / "other.jsonl", "{}")
    (row,) = rows_in(write(tmp_path / name, text))
    assert row.values == ROWS[0]


def test_a_folder_a_packed_file_and_a_document_of_several_lists_are_called_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; write .*/\*\.jsonl, or another pattern"):
        rows_in(tmp_path)
    with pytest.raises(UserError, match=r"x\.jsonl\.gz is no .* file; unpack it, or name another file"):
        rows_in(write(tmp_path / "x.jsonl.gz", ""))
    with pytest.raises(UserError, match=r"holds 2 lists \(train, test\), and rows stand in one"):
        rows_in(write(tmp_path / "x.json", json.dumps({"train": ROWS, "test": ROWS})))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.tsv", "", "an empty file"), ("x.tsv", "a\ta\n", "2 columns are named 'a'"),
        ("x.json", "{", "not JSON"), ("x.json", "3", "holds no list"), ("x.toon", "rows[2]{a}:\n  1\n", "not TOON"),
        ("x.csv", "", "an empty file"), ("x.parquet", "no", "not a Parquet file"), ("x.pdf", "hi", "is no .jsonl"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_an_error_with_a_fix(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        rows_in(write(tmp_path / name, text))
    assert str(caught.value).count("; ") >= 1
    assert "\n" not in str(caught.value)


def test_patterns_name_several_files_and_limit_takes_the_first_rows(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write(tmp_path / f"{name}.jsonl", f'{{"text": "{name}1"}}\n{{"text": "{name}2"}}\n')
    rows = rows_in(tmp_path / "*.jsonl", limit=3)
    assert [row.values["text"] for row in rows] == ["a1", "a2", "b1"]
    (tmp_path / "below/it").mkdir(parents=True)
    write(tmp_path / "below/it/c.jsonl", '{"text": "c1"}\n')
    assert [row.values["text"] for row in rows_in(tmp_path / "**/*.jsonl")] == ["a1", "a2", "b1", "b2", "c1"], "C35"


def test_nothing_that_matches_is_said_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file matches .*missing\.jsonl in "):
        rows_in(tmp_path / "missing.jsonl")


def meaning(values: dict[str, object], **options: object) -> object:
    return read(RawRow("f:1", values, str), Dataset(path="f", **{"type": "chatml", **options}))


def test_each_type_reads_its_columns() -> None:
    turns = [{"role": "user", "content": "hi", "tool_calls": None}, {"role": "assistant", "content": "ho"}]
    assert meaning({"messages": turns}) == Chat([{"role": "user", "content": "hi"}, turns[1]])
    alpaca = {"instruction": "do", "input": "this", "output": "done"}
    assert meaning(alpaca, type="alpaca") == Pair("do\n\nthis", "done")
    assert meaning({**alpaca, "input": ""}, type="alpaca") == Pair("do", "done")
    asked = {"question": "q", "answer": 42}
    assert meaning(asked, type="prompt_completion", prompt="question", completion="answer") == Pair("q", "42")
    assert meaning({"prompt": True, "completion": 1.5}, type="toon") == Pair("true", "1.5")
    assert meaning({"body": "words"}, type="text", text="body") == Text("words")


USER, SURE, DONE = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "sure"), ("assistant", "done"))
)


@pytest.mark.parametrize("answer", ["done", DONE, [DONE], {"from": "gpt", "value": "done"}])
def test_a_prompt_of_messages_goes_on_with_its_completion_and_is_not_trained_on(answer: object) -> None:
    """As TRL's and LLaMA-Factory's files have them."""
    (*asked, last) = meaning({"prompt": [USER, SURE, USER], "completion": answer}, type="prompt_completion").turns
    assert [(turn["content"], turn["train"]) for turn in asked] == [("q", False), ("sure", False), ("q", False)]
    assert last == DONE


def test_a_call_of_the_older_form_is_a_tool_call_and_its_result_a_tools() -> None:
    """Else an answer would be trained on as if it had called nothing."""
    called = {"role": "assistant", "content": "let me", "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    turns = meaning({"messages": [USER, called, {"role": "function", "name": "f", "content": "2"}, DONE]}).turns
    assert turns[1]["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    assert "function_call" not in turns[1]
    assert turns[2] == {"role": "tool", "name": "f", "content": "2"}


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ({"chat": []}, {}, "no column 'messages' (it has chat); name the column with `messages:`"),
        ({"messages": []}, {}, "messages is no list of messages"),
        ({"messages": [{"role": "user", "content": "hi"}]}, {}, "no message of the assistant"),
        ({"messages": [{"role": "bot", "content": "hi"}]}, {}, "message 1 has the role 'bot'"),
        ({"messages": [{"role": "user", "content": 3}]}, {}, "message 1 has no text as content"),
        ({"prompt": "a", "completion": " "}, {"type": "toon"}, "column 'completion' is empty"),
        ({"prompt": "a", "completion": None}, {"type": "toon"}, "column 'completion' is empty; fill it, or leave"),
        ({"prompt": "a", "completion": {}}, {"type": "prompt_completion"}, "is a dict, not text"),
        ({"instruction": "a"}, {"type": "alpaca"}, "alpaca rows have instruction, input, output"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_in_a_line(
    values: dict[str, object], options: dict[str, object], words: str
) -> None:
    with pytest.raises(NotARow) as caught:
        meaning(values, **options)
    assert words in f"{caught.value.what}; {caught.value.fix}"


@pytest.mark.parametrize("name", ["rows.json", "rows.toon"])
def test_a_document_that_is_read_whole_has_a_stated_bound(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate((128 << 20) + 1)
    with pytest.raises(
        UserError, match=r"has 128 MiB, and a \.\w+ file is read whole: at most 128 MiB; write one JSON object per line"
    ):
        rows_in(tmp_path / name)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"instruction": "hi", "output": "ho"}, {"type": "alpaca"}),
        ({"prompt": "hi", "completion": "ho"}, {"type": "prompt_completion"}),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}, {"type": "chatml", "messages": "conversations"}),
    ],
)  # fmt: skip
def test_a_column_with_the_system_message_stands_first_in_its_chat(
    row: dict[str, object], options: dict[str, object]
) -> None:
    """Issue 13: no column is dropped without a word; LLaMA-Factory's rows have such a one."""

    def roles(values: dict[str, object], **more: object) -> list[str]:
        found = read(RawRow("x:1", values, "{}"), Dataset(path="x", **options, **more))
        assert isinstance(found, Chat | Pair)
        return [turn["role"] for turn in found.turns]

    assert roles({**row, "system": "be kind"}) == ["system", "user", "assistant"]
    assert roles({**row, "lead": "be kind"}, system="lead") == ["system", "user", "assistant"]
    for values, more in (({**row, "system": " "}, {}), ({**row, "system": "be kind"}, {"system": None}), (row, {})):
        assert roles(values, **more) == ["user", "assistant"]


def test_a_template_of_the_prompt_may_have_the_system_message_itself() -> None:
    dataset = Dataset(path="x", type="alpaca", prompt_template="{system}: {instruction}")
    found = read(RawRow("x:1", {"instruction": "hi", "output": "ho", "system": "be kind"}, "{}"), dataset)
    assert found == Pair("be kind: hi", "ho")
