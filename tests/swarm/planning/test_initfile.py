from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swarm.config import Config, load
from swarm.errors import UserErrors
from swarm.planning import initfile


def loaded(folder: Path, base_model: str = "tiny-toon") -> Config:
    (folder / "swarm.yaml").write_text(initfile.text(folder, base_model), encoding="utf-8")
    return load(Path("swarm.yaml"), cwd=folder)


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("train.jsonl", '\n{"messages": []}\n', {"type": "chatml", "messages": "messages"}),
        ("train.jsonl", '{"conversations": []}\n', {"type": "chatml", "messages": "conversations"}),
        ("rows.jsonl", '{"instruction": "a", "input": "", "output": "b"}\n', {"type": "alpaca"}),
        (
            "rows.csv",
            "question,answer\n1,2\n",
            {"type": "prompt_completion", "prompt": "question", "completion": "answer"},
        ),
        ("rows.json", json.dumps([{"text": "a"}, {"text": "b"}]), {"type": "text", "text": "text"}),
        ("rows.toon", "rows[1]{prompt,completion}:\n  a,b\n", {"type": "prompt_completion", "prompt": "prompt"}),
        ("rows.jsonl", '{\n{"text": "a\u2028b"}\n', {"type": "text", "text": "text"}),
        (
            "two words #1.jsonl",
            '{"prompt": "a", "completion": "b"}\n',
            {"type": "prompt_completion", "prompt": "prompt"},
        ),
    ],
)
def test_what_init_writes_loads_with_the_row_type_that_fits_the_file(tmp_path, name, text, read):
    (tmp_path / name).write_text(text, encoding="utf-8")
    config = loaded(tmp_path)
    assert set(config.run.streams) == {"narrow", "wide"}
    dataset = config.run.streams["wide"].datasets[0].model_dump()
    assert Path(dataset["path"]).name == name
    assert {key: dataset[key] for key in read} == read


@pytest.mark.parametrize(("place", "pattern"), [(".", "*.txt"), ("data", "*.txt")])
def test_a_folder_of_texts_alone_is_read_as_a_row_each(tmp_path: Path, place: str, pattern: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for name in ("one", "two"):
        (tmp_path / place / f"{name}.txt").write_text(f"{name} and more\n")
    [dataset] = loaded(tmp_path).run.streams["wide"].datasets
    assert (Path(dataset.path), dataset.type) == (tmp_path / place / pattern, "text")


def test_texts_beside_those_of_a_program_or_beside_rows_are_no_data(tmp_path: Path) -> None:
    for name in ("requirements.txt", "notes.txt"):
        (tmp_path / name).write_text("torch\n")
    assert initfile.texts(tmp_path) is None
    (tmp_path / "requirements.txt").rename(tmp_path / "more.txt")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    assert Path(loaded(tmp_path).run.streams["wide"].datasets[0].path).name == "rows.jsonl"


def test_parquet_and_arrow_files_are_looked_into(tmp_path):
    table = pa.table({"question": ["a"], "answer": ["b"], "id": [1]})
    pq.write_table(table, tmp_path / "train.parquet")
    with pa.OSFile(str(tmp_path / "dev.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = loaded(tmp_path).run.streams["wide"]
    assert [(Path(d.path).name, d.prompt) for d in (*stream.datasets, *stream.test_datasets)] == [
        ("train.parquet", "question"), ("dev.arrow", "question"),
    ]  # fmt: skip


def test_a_file_of_held_out_rows_becomes_test_datasets(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("train", "dev"):
        (tmp_path / "data" / f"{name}.jsonl").write_text('{"question": "a", "answer": "b"}\n')
    stream = loaded(tmp_path).run.streams["narrow"]
    assert [Path(d.path).name for d in (*stream.datasets, *stream.test_datasets)] == ["train.jsonl", "dev.jsonl"]


def test_files_that_hold_no_rows_are_passed_over(tmp_path):
    (tmp_path / "package.json").write_text('{"name": "x"}')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "torn.jsonl").write_text('{"messages": [')
    (tmp_path / "numbers.csv").write_bytes(b"\xff\xfea,b\n1,2\n")
    (tmp_path / "z.jsonl").write_text('{"messages": []}\n')
    assert Path(loaded(tmp_path).run.streams["narrow"].datasets[0].path).name == "z.jsonl"


def test_without_data_the_only_problem_is_the_data(tmp_path):
    with pytest.raises(UserErrors) as caught:
        loaded(tmp_path)
    assert [(error.where, error.what) for error in caught.value.errors] == [
        ("swarm.yaml:10: defaults.datasets.0.path", f"no file matches data/train.jsonl in {tmp_path}")
    ]


def test_another_base_is_written_as_it_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    assert loaded(tmp_path, "Qwen/Qwen2.5-0.5B-Instruct").run.streams["wide"].base_model == "Qwen/Qwen2.5-0.5B-Instruct"
