"""Datasets of a stream: guessed or stated types, templates and system messages, weights, random parts, groups, and limits on what is cut."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import UserError
from swarm.settings import Dataset, StreamSettings
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from trainer.data.boundary import GoodRow, RowBoundary
from trainer.data.files import raw_rows
from trainer.data.prepared import HELD_OUT, TRAIN, read_rows
from trainer.data.prompt import Asker, read_prompt
from trainer.data.raw import RawRow
from trainer.data.rows import Pair, read
from trainer.data.settling import settled
from trainer.data.splits import held_out_rows
from trainer.data.tokens import Tokeniser, stop_tokens

Make = Callable[..., StreamSettings]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(path: Path, word: str, count: int, **more: object) -> Path:
    return jsonl(path, [{"prompt": f"{word} {n}", "completion": str(n), **more} for n in range(count)])


def texts(dataset: Dataset, template: str | None = tiny.CHATML, system: str | None = None) -> list[str]:
    """Its rows as the base reads them."""
    tokenizer = tiny.tokenizer(template)
    boundary = RowBoundary(Tokeniser(tokenizer, stop_tokens(tokenizer, None), 512), system)
    items = list(boundary.rows([dataset]))
    assert all(isinstance(item, GoodRow) for item in items), items
    return [str(tokenizer.decode(item.row.ids)) for item in items if isinstance(item, GoodRow)]


def words(folder: Path, name: str = TRAIN) -> list[str]:
    tokenizer = tiny.tokenizer()
    return [str(tokenizer.decode(row.ids)) for row in read_rows(folder / name)]


# ---- what a file is ----


def test_a_text_file_is_a_row_and_a_pattern_is_all_of_them(tmp_path: Path) -> None:
    """C35."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"the text of {name}\n\nand more")
    rows = list(raw_rows(Dataset(path=str(tmp_path / "*.txt"))))
    assert [row.where for row in rows] == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    assert isinstance(rows[0], RawRow)
    assert rows[0].values["text"] == "the text of a\n\nand more"
    assert texts(Dataset(path=str(tmp_path / "a.txt")), None) == ["the text of a\n\nand more<|im_end|>"]


@pytest.mark.parametrize(
    ("columns", "options", "kind", "named"),
    [
        (["messages"], {}, "chatml", {}), (["text", "instruction", "output"], {}, "alpaca", {}), (["conversations", "id"], {}, "chatml", {"messages": "conversations"}),
        (["instruction", "input", "output"], {}, "alpaca", {}), (["text"], {}, "text", {}),
        (["question", "answer"], {}, "prompt_completion", {"prompt": "question", "completion": "answer"}),
        (["text", "body"], {"text": "body"}, "text", {}), (["ask", "say"], {"prompt": "ask", "completion": "say"}, "prompt_completion", {}),
        (["text"], {"type": "chatml"}, "chatml", {}),
    ],
)  # fmt: skip
def test_a_type_is_guessed_by_the_columns_unless_it_is_stated(
    tmp_path: Path, columns: list[str], options: dict[str, str], kind: str, named: dict[str, str]
) -> None:
    """A25."""
    path = jsonl(tmp_path / "x.jsonl", [dict.fromkeys(columns, "words")])
    found = settled(Dataset(path=str(path), **options))
    sent = Dataset.model_validate_json(Dataset(path=str(path), **options).model_dump_json())
    assert settled(sent) == found, "a worker, which is given every setting, reads them alike"
    assert found.type == kind
    assert {key: getattr(found, key) for key in named} == named


def test_columns_that_fit_no_type_are_an_error_that_names_them(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"a": 1, "b": 2}])
    with pytest.raises(UserError, match=r"x\.jsonl:1: no row type fits the columns \(a, b\); write `type:`"):
        settled(Dataset(path=str(path)))


# ---- what a row says ----


def test_a_system_prompt_stands_where_a_row_has_none(tmp_path: Path) -> None:
    """A02, A25: the stream's, the dataset's own, and a row's own message, which wins."""
    own = {"role": "system", "content": "mine"}
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    chats = jsonl(tmp_path / "chats.jsonl", [{"messages": turns}, {"messages": [own, *turns]}])
    first, second = texts(Dataset(path=str(chats)), system="be kind")
    assert first.startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi")
    assert second.startswith("<|im_start|>system\nmine<|im_end|>\n<|im_start|>user\nhi")
    of_dataset, _ = texts(Dataset(path=str(chats), system_prompt="be brief"), system="be kind")
    assert of_dataset.startswith("<|im_start|>system\nbe brief")
    assert texts(Dataset(path=str(chats), system_prompt=""), system="be kind")[0].startswith("<|im_start|>user")
    asked = pairs(tmp_path / "pairs.jsonl", "double", 1)
    assert texts(Dataset(path=str(asked)), system="be kind")[0].startswith("<|im_start|>system\nbe kind")


def test_a_system_prompt_without_a_template_to_hold_it_is_refused(tmp_path: Path) -> None:
    path = pairs(tmp_path / "x.jsonl", "double", 1)
    with pytest.raises(UserError, match="system_prompt: the base has no chat template"):
        texts(Dataset(path=str(path)), None, system="be kind")


def meaning(values: dict[str, object], **options: object) -> object:
    return read(RawRow("f:1", values, str), Dataset(path="f", **options))


def test_a_prompt_is_written_by_the_users_template_or_by_alpacas(tmp_path: Path) -> None:
    """D35, G19."""
    own = {"type": "prompt_completion", "prompt_template": "Say {{{word}}} in {language}:", "completion": "answer"}
    assert meaning({"word": "red", "language": "French", "answer": "rouge"}, **own) == Pair(
        "Say {red} in French:", "rouge"
    )
    row = {"instruction": "add", "input": "1 2", "output": "3"}
    asked = meaning(row, type="alpaca", prompt_template="alpaca")
    assert isinstance(asked, Pair)
    assert asked.prompt.startswith("Below is an instruction that describes a task, paired with an input")
    assert asked.prompt.endswith("### Instruction:\nadd\n\n### Input:\n1 2\n\n### Response:")
    alone = meaning({**row, "input": " "}, type="alpaca", prompt_template="alpaca")
    assert isinstance(alone, Pair)
    assert alone.prompt.endswith("the request.\n\n### Instruction:\nadd\n\n### Response:")
    literal = {
        "prompt_template": "{instruction}\n\nInput:\n{input}\n\nResponse:",
        "no_input_template": "{instruction}\n\nResponse:",
    }
    assert meaning(row, type="alpaca", **literal) == Pair("add\n\nInput:\n1 2\n\nResponse:", "3")
    assert meaning({**row, "input": None}, type="alpaca", **literal) == Pair("add\n\nResponse:", "3")


def test_a_model_is_asked_with_the_template_and_the_system_prompt_of_its_rows(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"word": f"w{n}", "answer": str(n)} for n in range(20)])
    data = {"path": str(path), "type": "prompt_completion", "prompt_template": "Spell {word}!", "completion": "answer"}
    done = bench.do("prepare", settings(datasets=[data], system_prompt="be kind", val_set_size=2))["prepared"]
    prompt = read_prompt(bench.place.run_folder / done.path)
    assert prompt is not None
    tokenizer = tiny.tokenizer()
    asked = str(tokenizer.decode(Asker(tokenizer, prompt, 512).question("red")))
    assert (
        asked
        == "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nSpell red!<|im_end|>\n<|im_start|>assistant\n"
    )
    assert f"{asked}0<|im_end|>\n".replace("red", "w0") in words(bench.place.run_folder / done.path) + words(
        bench.place.run_folder / done.path, HELD_OUT
    )


# ---- which rows are trained on ----


def mixture(tmp_path: Path, **changes: object) -> dict[str, object]:
    """100, 60 and 12 rows, of which two of the second equal rows of the first, and one of the third one of its own."""
    core = pairs(tmp_path / "core.jsonl", "core", 100)
    more = jsonl(
        tmp_path / "more.jsonl",
        [{"prompt": f"More {n}" if n > 1 else f"CORE  {n}", "completion": str(n)} for n in range(60)],
    )
    guard = jsonl(tmp_path / "guard.jsonl", [{"prompt": f"guard {n % 11}", "completion": "no"} for n in range(12)])
    test = pairs(tmp_path / "test.jsonl", "test", 4)
    listed = [{"path": str(path), "weight": weight} for path, weight in ((core, 3), (more, 1), (guard, 1))]
    return {"datasets": listed, "test_datasets": [{"path": str(test)}], **changes}


def of_each(folder: Path) -> Counter[str]:
    return Counter(text.split("user\n")[1].split()[0] for text in words(folder))


@pytest.mark.parametrize(
    ("strategy", "rows"),
    [("repeat", {"core": 174, "More": 58, "guard": 58}), ("sample", {"core": 33, "More": 11, "guard": 11})],
)
def test_weights_hold_to_a_row_after_equal_rows_are_taken_out(
    bench: Bench, settings: Make, tmp_path: Path, strategy: str, rows: dict[str, int]
) -> None:
    """A28: the source repeated rows and removed equal ones after that, which cancelled every weight."""
    given = settings(**mixture(tmp_path, mix_strategy=strategy))
    done = bench.do("prepare", given)["prepared"]
    folder = bench.place.run_folder / done.path
    assert of_each(folder) == rows
    assert "3 rows equal earlier ones and were left out" in done.body
    achieved = " : ".join(map(str, rows.values()))
    assert f"mixed by weight: {achieved} (60.0 % : 20.0 % : 20.0 %) rows" in done.body
    repeats = Counter(words(folder))
    assert max(repeats.values()) == (6 if strategy == "repeat" else 1)
    assert len(repeats) == (100 + 58 + 11 if strategy == "repeat" else 55)


def test_the_rows_of_a_mixture_are_drawn_by_its_own_seed(bench: Bench, settings: Make, tmp_path: Path) -> None:
    """A28."""

    def trained(**changes: object) -> list[str]:
        given = settings(**mixture(tmp_path, mix_strategy="sample", **changes))
        return words(bench.place.run_folder / bench.do("prepare", given)["prepared"].path)

    assert trained(mix_seed=1) == trained(mix_seed=1, seed=7) != trained(mix_seed=2)


def test_held_out_rows_are_the_same_whatever_the_weights_and_are_never_repeated(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    given = mixture(tmp_path, test_datasets=[], val_set_size=20)
    weighted = bench.place.run_folder / bench.do("prepare", settings(**given))["prepared"].path
    for dataset in given["datasets"]:  # type: ignore[attr-defined]
        dataset["weight"] = None
    plain = bench.place.run_folder / bench.do("prepare", settings(**given, dedupe=True))["prepared"].path
    assert words(weighted, HELD_OUT) == words(plain, HELD_OUT)
    assert len(words(plain, HELD_OUT)) == 20
    assert not set(words(weighted)) & set(words(weighted, HELD_OUT))


def test_equal_rows_are_told_and_dedupe_trains_on_them_once(bench: Bench, settings: Make, tmp_path: Path) -> None:
    rows = [{"prompt": f"{'Double' if n % 3 else 'double '} {n // 3}", "completion": "x"} for n in range(36)]
    given = {"datasets": [{"path": str(jsonl(tmp_path / "x.jsonl", rows))}], "val_set_size": 3}
    plain = bench.do("prepare", settings(**given))["prepared"]
    assert (plain.rows, plain.held_out) == (33, 3)
    assert "24 rows equal earlier ones; `dedupe: true` trains on them once" in plain.body
    once = bench.do("prepare", settings(**given, dedupe=True))["prepared"]
    assert (once.rows, once.held_out) == (9, 3)
    assert "24 rows equal earlier ones and were left out" in once.body


def test_ablation_is_a_seeded_part_in_the_order_of_the_rows(bench: Bench, settings: Make, tmp_path: Path) -> None:
    """A07."""

    def trained(**changes: object) -> list[str]:
        given = settings(datasets=[{"path": str(pairs(tmp_path / "x.jsonl", "double", 60))}], **changes)
        return words(bench.place.run_folder / bench.do("prepare", given)["prepared"].path)

    every, some, again, other = (
        trained(), trained(ablate_examples=16), trained(ablate_examples=16, seed=7), trained(ablate_examples=16, ablate_seed=1)
    )  # fmt: skip
    assert len(some) == 16
    assert some == [text for text in every if text in set(some)] == again
    assert some != every[:16]
    assert other != some


def test_limit_takes_the_first_rows_or_random_ones(tmp_path: Path) -> None:
    """C41."""
    path = str(pairs(tmp_path / "x.jsonl", "row", 50))

    def numbers(**options: object) -> list[int]:
        rows = raw_rows(Dataset(path=path, limit=5, **options))
        return [int(row.values["completion"]) for row in rows if isinstance(row, RawRow)]

    assert numbers() == [0, 1, 2, 3, 4]
    assert len(numbers(shuffle=True)) == 5
    assert numbers(shuffle=True) == sorted(numbers(shuffle=True)) != numbers()
    assert numbers(shuffle=True) != numbers(shuffle=True, shuffle_seed=1)


# ---- which rows are held out ----


def test_rows_of_one_group_stay_together(bench: Bench, settings: Make, tmp_path: Path) -> None:
    """C28."""
    rows = [{"prompt": f"of {n // 5} {n}", "completion": str(n), "document": n // 5} for n in range(50)]
    data = [{"path": str(jsonl(tmp_path / "x.jsonl", rows)), "group_by": "document"}]
    done = bench.do("prepare", settings(datasets=data, val_set_size=12))["prepared"]
    folder = bench.place.run_folder / done.path
    train, held_out = (
        {text.split("user\nof ")[1].split()[0] for text in words(folder, name)} for name in (TRAIN, HELD_OUT)
    )
    assert not train & held_out
    assert (len(train), len(held_out), done.held_out) == (8, 2, 10)


def test_equal_rows_join_the_groups_in_which_they_stand() -> None:
    fingerprints = [b"1", b"2", b"2", b"3", b"4", b"5", b"6", b"7"]
    groups = [b"a", b"a", b"b", b"b", b"c", b"c", b"", b""]
    together = {0, 1, 2, 3}
    for seed in map(str, range(20)):
        chosen = held_out_rows(fingerprints, 4, seed, groups)
        assert chosen & together in (set(), together)
        assert len(chosen & {4, 5}) in (0, 2)
    assert len({held_out_rows(fingerprints, 4, seed, groups) for seed in map(str, range(20))}) > 1, "other data, others"


def test_groups_and_equal_rows_on_both_sides_are_refused(bench: Bench, settings: Make, tmp_path: Path) -> None:
    by_author = {"group_by": "author"}
    train = {"path": str(pairs(tmp_path / "train.jsonl", "train", 20, author="ada")), **by_author}
    test = {"path": str(pairs(tmp_path / "test.jsonl", "test", 4, author="ada")), **by_author}
    with pytest.raises(UserError, match="20 training rows belong to groups of held-out rows"):
        bench.do("prepare", settings(datasets=[train], test_datasets=[test]))
    steps = {"path": str(pairs(tmp_path / "steps.jsonl", "TRAIN ", 2, author="bob"))}
    chosen = {"val_datasets": [steps], "eval_steps": 2, "val_set_size": 2}
    with pytest.raises(UserError, match=r"val_datasets: 2 training rows equal held-out rows \(.*steps\.jsonl:1"):
        bench.do("prepare", settings(datasets=[{"path": train["path"]}], **chosen))


def test_a_row_without_its_group_is_a_bad_row(bench: Bench, settings: Make, tmp_path: Path) -> None:
    data = [{"path": str(pairs(tmp_path / "x.jsonl", "x", 8)), "group_by": "author"}]
    with pytest.raises(UserError, match=r"x\.jsonl:1: no column 'author', by which rows are kept together"):
        bench.do("prepare", settings(datasets=data, val_set_size=2))


def test_equal_rows_are_found_across_types_and_system_prompts(bench: Bench, settings: Make, tmp_path: Path) -> None:
    chats = [
        {"messages": [{"role": "system", "content": "other"}, {"role": "user", "content": f" Double {n}"}, {"role": "assistant", "content": str(n)}]}
        for n in range(3)
    ]  # fmt: skip
    given = {
        "datasets": [{"path": str(pairs(tmp_path / "x.jsonl", "double", 12))}],
        "test_datasets": [{"path": str(jsonl(tmp_path / "chats.jsonl", chats))}],
    }
    with pytest.raises(UserError, match="3 training rows equal held-out rows"):
        bench.do("prepare", settings(**given))


# ---- what is cut ----


def test_too_many_cut_rows_or_answers_end_the_stream_with_places(bench: Bench, settings: Make, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "completion": "long " * (30 if n % 2 else 1)} for n in range(10)]
    rows += [{"prompt": f"long {n} " * 30, "completion": "x"} for n in range(2)]
    data = [{"path": str(jsonl(tmp_path / "x.jsonl", rows))}]
    with pytest.raises(UserError, match=r"64 tokens cut 2 of 12 rows before their answer \(.*:11, .*:12\), and `max_lost_rows` is 0\.1"):  # fmt: skip
        bench.do("prepare", settings(datasets=data, val_set_size=2, max_lost_rows=0.1))
    with pytest.raises(UserError, match=r"64 tokens cut 5 of 12 rows at their end \(.*:2, .*:4, .*:6, \.\.\.\)"):
        bench.do("prepare", settings(datasets=data, val_set_size=2, max_lost_rows=0.5, max_cut_rows=0.4))
    done = bench.do("prepare", settings(datasets=data, val_set_size=2))["prepared"]
    assert done.cut == 5


def test_a_developers_message_is_a_system_message_where_the_template_knows_no_developer(tmp_path: Path) -> None:
    """OpenAI's files have either."""
    template = tiny.CHATML.replace(
        "{{- '<|im_start|>'",
        "{%- if m['role'] not in ['system', 'user', 'assistant'] -%}{{- raise_exception('who?') -}}{%- endif -%}{{- '<|im_start|>'",
        1,
    )
    turns = [{"role": role, "content": f"the {role}'s"} for role in ("developer", "user", "assistant")]
    path = jsonl(tmp_path / "x.jsonl", [{"messages": turns}])
    (text,) = texts(Dataset(path=str(path)), template)
    assert text.startswith("<|im_start|>system\nthe developer's<|im_end|>")


@pytest.mark.parametrize("whole", [True, False])
def test_preferences_are_read_from_messages_too(tmp_path: Path, whole: bool) -> None:
    """A38: two conversations, or a prompt of messages with two answers, as the hub's data sets have them."""
    asked = [{"role": "user", "content": "q"}]
    answers = {name: [{"role": "assistant", "content": f"a {name} answer"}] for name in ("chosen", "rejected")}
    row = {name: [*asked, *answer] for name, answer in answers.items()} if whole else {"prompt": asked, **answers}
    tokenizer = tiny.tokenizer()
    boundary = RowBoundary(Tokeniser(tokenizer, stop_tokens(tokenizer, None), 512))
    (item,) = boundary.rows([Dataset(path=str(jsonl(tmp_path / "x.jsonl", [row])), rejected="rejected")])
    assert isinstance(item, GoodRow), item
    found = item.row
    ends = [tokenizer.decode(ids) for ids in (found.ids[found.answer_start :], found.rejected)]
    assert ends == ["a chosen answer<|im_end|>\n", "a rejected answer<|im_end|>\n"]
    assert tokenizer.decode(found.ids[: found.answer_start]).endswith("<|im_start|>assistant\n")


def test_a_set_without_a_usable_row_says_what_is_wrong_with_the_first(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"prompt": "a", "completion": [n]} for n in range(3)])
    data = {"path": str(path), "type": "prompt_completion"}
    with pytest.raises(UserError) as caught:
        bench.do("prepare", settings(datasets=[data], on_bad_row="skip"))
    assert str(caught.value).startswith("datasets: no row is left to use (3 bad, 0 cut before their answer); ")
    assert str(caught.value).endswith(
        "x.jsonl:1: column 'completion' is a list, not text; write text, or use `type: chatml` for messages"
    )
