"""What a dataset's settings name must stand in its files: `swarm check` says it, with the line of the config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm import config
from swarm.config.tree import Problems
from swarm.errors import UserErrors
from swarm.planning import columns
from swarm.planning.rows import trained_on
from swarm.settings import Part


def problems(tmp_path: Path, dataset: str, row: dict[str, object]) -> list[str]:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    path = tmp_path / "my.yaml"
    path.write_text(
        f"name: a\ndefaults:\n  base_model: tiny-toon\n  datasets:\n    - {dataset}\nstreams: {{one: {{}}}}\n"
    )

    def further(root: object, run: object, found: Problems) -> None:
        if run is not None:
            columns.look(root, run, found)  # type: ignore[arg-type]

    try:
        config.load(path, [], cwd=tmp_path, further=further)
    except UserErrors as errors:
        return [f"{error.where.removeprefix(str(tmp_path))}: {error.what}; {error.fix}" for error in errors.errors]
    return []


ROW = {"word": "red", "answer": "rouge", "language": "French"}


@pytest.mark.parametrize(
    ("dataset", "row", "words"),
    [
        ('{path: x.jsonl, type: prompt_completion, prompt_template: "Say {word} in {langage}", completion: answer}', ROW,
         "prompt_template: {file} has no column 'langage'; did you mean language?"),
        ('{path: x.jsonl, prompt_template: "Say {word:>9}", completion: answer}', ROW,
         "prompt_template: {word} is no name of a column; write {column} alone"),
        ('{path: x.jsonl, prompt_template: "Say {", completion: answer}', ROW, "prompt_template: cannot be read ("),
        ('{path: x.jsonl, prompt_template: "Say it", completion: answer}', ROW, "prompt_template: names no column; write {column}"),
        ("{path: x.jsonl, prompt: word, completion: answer, group_by: book}", ROW, "group_by: {file} has no column 'book'; it has word,"),
        ("{path: x.jsonl, type: prompt_completion, prompt: word}", ROW, "completion: {file} has no column 'completion'; it has word,"),
        ("{path: x.jsonl, type: chatml}", ROW, "messages: {file} has no column 'messages'; it has word,"),
        ("{path: x.jsonl, type: text, text: words}", ROW, "text: {file} has no column 'words'; did you mean word?"),
        ("{path: x.jsonl, type: alpaca}", {"instruction": "a", "response": "b"}, "type: {file} has no column 'output'; it has instruction,"),
        ("{path: x.jsonl}", {"a": 1, "b": 2}, "type: no row type fits the columns of {file} (a, b); write `type:`"),
    ],
)  # fmt: skip
def test_a_name_that_no_column_has_is_found_before_a_run(tmp_path: Path, dataset: str, row: dict[str, object], words: str) -> None:  # fmt: skip
    """G19."""
    (said,) = problems(tmp_path, dataset, row)
    assert f"my.yaml:5: defaults.datasets.0.{words.replace('{file}', str(tmp_path / 'x.jsonl'))}" in said.lstrip("/")


@pytest.mark.parametrize(
    "dataset",
    ['{path: x.jsonl, prompt_template: "Say {word} in {language}, {{please}}", completion: answer}',
     "{path: x.jsonl, prompt: word, completion: answer}"],
)  # fmt: skip
def test_columns_that_are_there_pass(tmp_path: Path, dataset: str) -> None:
    assert problems(tmp_path, dataset, ROW) == []


def test_keys_of_a_dataset_that_would_change_nothing_are_refused(tmp_path: Path) -> None:
    said = problems(
        tmp_path, "{path: x.jsonl, type: text, prompt_template: alpaca, system_prompt: be kind}", {"text": "a"}
    )
    assert [line.split(": ")[1] for line in said] == [
        "defaults.datasets.0.prompt_template",
        "defaults.datasets.0.system_prompt",
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            "packing: bfd, batch_size_tokens: 600",
            "batch_size_tokens: `packing` makes micro-batches of `micro_batch_size` full sequences",
        ),
        ("packing: bfd, group_by_length: true", "group_by_length: packed sequences are of like length"),
        (
            "batch_size_tokens: 100",
            "batch_size_tokens: 100 tokens do not hold one row of `sequence_len: 512`; write at least 512",
        ),
        (
            "packing: bfd, engine: trl",
            "engine: trl cannot train sft + lora with packing; write shared",
        ),
        (
            "datasets: [{path: x.jsonl, weight: 2}], ablate_examples: 4",
            "ablate_examples: it would take rows out of a mixture",
        ),
        ("test_datasets: [{path: x.jsonl, weight: 2}], allow_overlap: true", "weight: held-out rows are not mixed"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, keys: str, words: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "my.yaml"
    path.write_text(f"name: a\nstreams:\n  one: {{base_model: tiny-toon, datasets: [{{path: x.jsonl}}], {keys}}}\n".replace("datasets: [{path: x.jsonl}], datasets", "datasets"))  # fmt: skip
    with pytest.raises(UserErrors) as caught:
        config.load(path, [], cwd=tmp_path)
    assert words in str(caught.value)


def test_a_plan_counts_the_rows_of_a_mixture(tmp_path: Path) -> None:
    """A28: as many as preparing makes, where no rows are equal or bad."""
    for name, count in (("core", 110), ("more", 66)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"prompt": "{name} {n}", "completion": "1"}}\n' for n in range(count)))  # fmt: skip
    listed = [
        {"path": str(tmp_path / "core.jsonl"), "weight": 3.0},
        {"path": str(tmp_path / "more.jsonl"), "weight": 1.0},
    ]
    part = Part.model_validate({"base_model": "x", "datasets": listed, "val_set_size": 16})
    assert trained_on(part) == 240
    assert trained_on(part.model_copy(update={"mix_strategy": "sample"})) == 133
    plain = [{**dataset, "weight": None} for dataset in listed]
    assert trained_on(Part.model_validate({"base_model": "x", "datasets": plain, "val_set_size": 16})) == 160
    assert (
        trained_on(
            Part.model_validate({"base_model": "x", "datasets": plain, "val_set_size": 16, "ablate_examples": 96})
        )
        == 96
    )


def test_the_files_of_all_data_sets_are_read_by_one_process_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []
    reads = columns._read

    def noted(names: list[str]) -> dict[str, list[str]]:
        read.append([Path(name).name for name in names])
        return reads(names)

    monkeypatch.setattr(columns, "_read", noted)
    for name in ("y", "z"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "y"}\n')
    listed = "{path: x.jsonl, prompt: word, completion: answer}\n    - {path: y.jsonl}\n  test_datasets:\n    - {path: z.jsonl}"
    assert problems(tmp_path, listed, ROW) == []
    assert read == [["x.jsonl", "y.jsonl", "z.jsonl"]]
