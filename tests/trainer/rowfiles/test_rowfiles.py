"""`swarm data`: files of rows from files of rows, each with a manifest, never over an existing file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swarm.weights import sha256_of
from tests.trainer import tiny
from trainer.data.prompt import Prompt
from trainer.rowfiles.__main__ import main
from trainer.rowfiles.markdown import as_markdown, points

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's own


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pairs(path: Path, word: str, count: int) -> Path:
    return jsonl(
        path,
        [
            {"prompt": f"{word} {n}", "completion": f"It is {n}, of course. More of {word} follows here, and ends."}
            for n in range(count)
        ],
    )


def made(out: Path, *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--out", str(out)]) == 0
    manifest: dict[str, Any] = json.loads(out.with_name(f"{out.name}.manifest.json").read_text())
    assert manifest["sha256"] == sha256_of(out)
    return manifest


def test_a_mixture_holds_its_ratio_to_a_row_and_says_what_it_was_made_from(tmp_path: Path) -> None:
    """A28: 100, 60 and 12 rows at 3:1:1 are not their natural counts."""
    core, notes = pairs(tmp_path / "core.jsonl", "core", 100), pairs(tmp_path / "notes.jsonl", "notes", 60)
    guard = tmp_path / "guard.jsonl"
    made(guard, "guard")
    out = tmp_path / "mix.jsonl"
    manifest = made(out, "mix", f"{core}:3", f"{notes}:1", f"{guard}:1")
    assert manifest["rows_of_each"] == [180, 60, 60]
    assert manifest["ratio"] == "180 : 60 : 60 (60.0 % : 20.0 % : 20.0 %)"
    assert [source["sha256"] for source in manifest["inputs"]] == [sha256_of(path) for path in (core, notes, guard)]
    assert manifest["seed"] == 42
    first = Counter(json.dumps(row["messages"][-1]) for row in lines(out))
    assert sorted(set(first.values())) == [1, 2, 5]
    again, other = tmp_path / "again.jsonl", tmp_path / "other.jsonl"
    assert made(again, "mix", f"{core}:3", f"{notes}:1", f"{guard}:1")["sha256"] == manifest["sha256"]
    assert made(other, "mix", f"{core}:3", f"{notes}:1", f"{guard}:1", "--seed", "7")["sha256"] != manifest["sha256"]
    in_order = tmp_path / "in_order.jsonl"
    made(in_order, "mix", f"{core}:3", f"{notes}:1", f"{guard}:1", "--no-shuffle")
    assert lines(in_order) != lines(out)
    assert Counter(in_order.read_text().splitlines()) == Counter(out.read_text().splitlines())


def test_equal_rows_go_before_the_weights_within_and_across_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = pairs(tmp_path / "core.jsonl", "core", 10)
    more = jsonl(
        tmp_path / "more.jsonl", [*lines(core)[:4], *({"prompt": f" NEW {n % 2}", "completion": "x"} for n in range(6))]
    )
    manifest = made(tmp_path / "mix.jsonl", "mix", f"{core}:1", f"{more}:1", "--strategy", "sample", "--no-shuffle")
    assert (manifest["rows_of_each"], manifest["equal_rows_left_out"]) == ([2, 2], 8)
    assert made(tmp_path / "all.jsonl", "mix", core, more, "--no-dedupe")["rows"] == 20
    assert made(tmp_path / "few.jsonl", "mix", core, more, "--limit", "5")["rows"] == 5
    assert main(["mix", str(core), str(core), "--out", str(tmp_path / "x.jsonl")]) == 2
    assert (
        "core.jsonl: holds no row that earlier files do not have; take it out, or give --no-dedupe"
        in capsys.readouterr().err
    )


def test_a_limit_of_a_mixture_holds_its_ratio(tmp_path: Path) -> None:
    """A28."""
    core, notes = pairs(tmp_path / "core.jsonl", "core", 30), pairs(tmp_path / "notes.jsonl", "notes", 30)
    manifest = made(tmp_path / "mix.jsonl", "mix", f"{core}:3", f"{notes}:1", "--limit", "20")
    assert manifest["rows_of_each"] == [15, 5]


def test_nothing_is_overwritten_unless_that_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "guard.jsonl"
    out.write_text("mine")
    assert main(["guard", "--out", str(out)]) == 2
    assert f"--out: {out} exists; name another file, or give --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["guard.jsonl"]
    made(out, "guard", "--force")
    assert len(lines(out)) == 12


def test_what_a_file_is_made_from_is_not_overwritten_even_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core, more = (
        jsonl(tmp_path / f"{name}.jsonl", [{"text": name}, {"text": f"{name} 2"}]) for name in ("core", "more")
    )
    before = core.read_bytes()
    assert main(["mix", str(core), str(more), "--out", str(core), "--force"]) == 2
    assert f"--out: {core} is one of its inputs, and would be lost; name another file" in capsys.readouterr().err
    assert core.read_bytes() == before


def test_a_weight_that_cannot_be_held_is_told_by_the_file_and_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core, more = (
        jsonl(tmp_path / f"{name}.jsonl", [{"text": name}, {"text": f"{name} 2"}]) for name in ("core", "more")
    )
    assert main(["mix", f"{core}:1", f"{more}:100000", "--out", str(tmp_path / "x.jsonl")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{more}: makes more than 1000 times") and err.endswith("set `--strategy sample`\n")


def test_a_bad_row_ends_a_command_with_its_place_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pairs(tmp_path / "x.jsonl", "x", 2)
    path.write_text(path.read_text() + '{"prompt": "no answer"}\n')
    assert main(["mix", str(path), "--out", str(tmp_path / "mix.jsonl")]) == 2
    assert "x.jsonl:3: no column 'completion'" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("words", [["mix"], ["markdown"], ["pairs", "--by", "truncate"]])
def test_a_file_without_rows_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    assert main([words[0], str(tmp_path / "empty.jsonl"), *words[1:], "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "empty.jsonl: holds no row; name another file" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_an_error_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mix", f"{tmp_path}/no.jsonl:1", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("swarm data mix: no file matches")


def test_the_guard_shows_twelve_clean_answers(tmp_path: Path) -> None:
    """A27."""
    made(tmp_path / "guard.jsonl", "guard")
    rows = [row["messages"] for row in lines(tmp_path / "guard.jsonl")]
    assert [[turn["role"] for turn in turns] for turns in rows] == [["system", "user", "assistant"]] * 12
    banned = ("<|", "Human:", "Machine:", "As an AI", "```", "###", "http", "sorry", "## ")
    assert not [turns for turns in rows if any(word in turns[2]["content"] for word in banned)]


def test_answers_become_a_heading_and_bullets_and_code_is_left_alone(tmp_path: Path) -> None:
    """A26."""
    answer = "Dr. Who came, e.g. on foot. Then he left!\n* keep this\n2) and this\n\nThe end"
    assert points(answer) == ["Dr. Who came, e.g. on foot.", "Then he left!", "keep this", "and this", "The end"]
    assert as_markdown("word " * 30 + "\nmore", "Yes.") == "## " + ("word " * 16).strip() + "…\n\n- Yes."
    path = jsonl(
        tmp_path / "x.jsonl",
        [
            {"instruction": "How?", "input": "", "output": "Do it. Then rest."},
            {"instruction": "Code", "input": "", "output": "```\nx = 1. Y\n```"},
        ],
    )
    manifest = made(tmp_path / "md.jsonl", "markdown", path)
    assert (manifest["rows"], manifest["left_out"]) == (1, 1)
    (row,) = lines(tmp_path / "md.jsonl")
    assert row["messages"][-1]["content"] == "## How?\n\n- Do it.\n- Then rest."


@pytest.mark.parametrize("answer", ["a | b\n|---|\n| 1 | 2 |", "# Yes\nIt is.", "Run\n    make all", "```\nx\n```"])
def test_a_table_a_heading_and_code_are_left_alone(tmp_path: Path, answer: str) -> None:
    """A26."""
    rows = [{"prompt": "How?", "completion": text} for text in (answer, "Yes.")]
    manifest = made(tmp_path / "md.jsonl", "markdown", jsonl(tmp_path / "x.jsonl", rows))
    assert (manifest["rows"], manifest["left_out"]) == (1, 1)


def test_a_system_message_stays_and_a_limit_takes_the_first_rows_that_can_be_used(tmp_path: Path) -> None:
    """A26."""
    turns = [{"role": role, "content": f"The {role}'s."} for role in ("system", "user", "assistant")]
    rows = [{"messages": [*turns[:2], {"role": "assistant", "content": "```x```"}]}, *[{"messages": turns}] * 3]
    manifest = made(tmp_path / "md.jsonl", "markdown", jsonl(tmp_path / "x.jsonl", rows), "--limit", "2")
    assert manifest["rows"] == 2
    found = [row["messages"] for row in lines(tmp_path / "md.jsonl")]
    assert found == [[*turns[:2], {"role": "assistant", "content": "## The user's.\n\n- The assistant's."}]] * 2


@pytest.mark.parametrize("by", ["truncate", "prefix"])
def test_rejected_answers_are_beginnings_and_that_teaches_length_unless_it_is_matched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    """A29."""
    path = pairs(tmp_path / "x.jsonl", "x", 20)
    path.write_text(path.read_text() + json.dumps({"prompt": "one word", "completion": "Yes"}) + "\n")
    manifest = made(tmp_path / "pairs.jsonl", "pairs", path, "--by", by)
    assert (
        "warning: the rejected answers are beginnings of the chosen ones: they teach length" in capsys.readouterr().err
    )
    assert (manifest["rows"], manifest["dropped"]) == (20, {"no rejected answer": 1})
    for row in lines(tmp_path / "pairs.jsonl"):
        chosen, rejected = row["chosen"], row["rejected"]
        assert row["prompt"].startswith("x ")
        assert chosen.startswith(rejected)
        assert len(rejected) < len(chosen)
        if by == "prefix":
            assert rejected == f"{chosen.partition('. ')[0]}.", "its first sentence"
        else:
            assert 0.2 < len(rejected.split()) / len(chosen.split()) <= 0.7
    even = made(tmp_path / "even.jsonl", "pairs", path, "--by", by, "--length-matched")
    assert "teach length" not in capsys.readouterr().err
    assert even["mean_words"]["chosen"] == even["mean_words"]["rejected"]
    assert all(row["chosen"] != row["rejected"] for row in lines(tmp_path / "even.jsonl"))


def test_a_part_of_the_pairs_is_drawn_by_the_seed_in_the_order_of_the_rows(tmp_path: Path) -> None:
    """A29."""
    path = pairs(tmp_path / "x.jsonl", "x", 40)

    def asked(seed: int) -> list[int]:
        out = tmp_path / f"{seed}.jsonl"
        made(out, "pairs", path, "--by", "prefix", "--limit", "5", "--seed", seed, "--force")
        return [int(row["prompt"].split()[1]) for row in lines(out)]

    assert len(asked(1)) == 5
    assert asked(1) == sorted(asked(1)) == asked(1) != asked(2)


def test_a_rejected_answer_that_equals_the_chosen_one_makes_no_pair(tmp_path: Path) -> None:
    """A29: filled up with the words of another answer, the first sentence is the whole one again, but for its case."""
    rows = [{"prompt": text, "completion": text} for text in ("Go on. Go on.", "go on. and so on")]
    path = jsonl(tmp_path / "x.jsonl", rows)
    manifest = made(tmp_path / "p.jsonl", "pairs", path, "--by", "prefix", "--length-matched")
    assert manifest["dropped"] == {"equal answers": 1}
    assert [row["prompt"] for row in lines(tmp_path / "p.jsonl")] == ["go on. and so on"]


def test_pairs_hold_one_question_and_say_what_they_leave_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "one two three four"}]
    rows = [
        {"messages": turns},
        {"messages": [{"role": "system", "content": "s"}, *turns]},
        {"messages": [*turns, *turns]},
    ]
    manifest = made(tmp_path / "p.jsonl", "pairs", jsonl(tmp_path / "x.jsonl", rows), "--by", "prefix")
    assert lines(tmp_path / "p.jsonl") == [{"prompt": "a", "chosen": "one two three four", "rejected": "one two"}] * 2
    assert manifest["dropped"] == {"several turns": 1}
    assert "warning: 1 rows have a system message, for which pairs have no column" in capsys.readouterr().err
    several = jsonl(tmp_path / "y.jsonl", rows[2:])
    assert main(["pairs", str(several), "--by", "prefix", "--out", str(tmp_path / "q.jsonl")]) == 2
    why = "pairs: no pair is left of 1 (1 with several turns); name rows with one question each"
    assert why in capsys.readouterr().err


def test_a_model_writes_the_rejected_answers_itself(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A29: the base's or an adapter's own answers."""
    path = pairs(tmp_path / "x.jsonl", "x", 3)
    adapter = tiny.save_adapter(base, tmp_path / "adapter")
    short = ("--max-new-tokens", "8", "--temperature", "1")
    for by, words in (("base", ("--base", base)), ("adapter", ("--base", base, "--adapter", adapter))):
        manifest = made(tmp_path / f"{by}.jsonl", "pairs", path, "--by", by, *words, *short)
        assert manifest["by"] == by
        rows = lines(tmp_path / f"{by}.jsonl")
        assert len(rows) + sum(manifest["dropped"].values()) == 3
        assert all(not row["chosen"].startswith(row["rejected"]) for row in rows)
        assert all(len(row["rejected"]) <= 8 for row in rows), "a token is a byte here"
    assert lines(tmp_path / "base.jsonl") != lines(tmp_path / "adapter.jsonl")
    assert main(["pairs", str(path), "--by", "adapter", "--out", str(tmp_path / "n.jsonl")]) == 2
    assert "--adapter: is missing; name the folder" in capsys.readouterr().err


def test_toon_and_back_is_the_same_file(tmp_path: Path) -> None:
    """G02, G08."""
    rows = [{"prompt": f"a, {n}\n", "completion": n / 2, "tags": ["x", {"y": None}]} for n in range(5)]
    path = jsonl(tmp_path / "x.jsonl", rows)
    manifest = made(tmp_path / "x.toon", "toon", path)
    assert manifest["bytes_as_jsonl"] == len("".join(json.dumps(row) + "\n" for row in lines(path)).encode())
    made(tmp_path / "back.jsonl", "toon", tmp_path / "x.toon")
    back = lines(tmp_path / "back.jsonl")
    assert [row["prompt"] for row in back] == [row["prompt"] for row in rows]
    assert [row["completion"] for row in back] == [row["completion"] for row in rows]


def test_a_runs_wrong_answers_become_rows_with_the_users_own_words(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """G27."""
    stream = tmp_path / "run" / "streams" / "one"
    (stream / "adapter").mkdir(parents=True)
    (stream / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    Prompt(tiny.CHATML, "\n", (2,)).write(stream / "adapter")
    said = [("double 2", "4", "4"), ("double 3", "6", "7"), ("hi\nassistant\nho\nuser\nand?", "x", "y")]
    jsonl(
        stream / "samples.jsonl",
        [
            {"prompt": f"user\n{asked}\nassistant", "expected": wanted, "base": "?", "adapter": answer}
            for asked, wanted, answer in said
        ],
    )
    out = tmp_path / "rows.jsonl"
    jsonl(
        tmp_path / "chat.jsonl",
        [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}],
    )
    assert main(["session", str(stream / "samples.jsonl"), str(tmp_path / "chat.jsonl"), "--out", str(out)]) == 0
    assert lines(out) == [
        {"instruction": "double 3", "response": "6"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    warned = capsys.readouterr().err
    assert "3 of 4 lines asked held-out rows: judge who trains on them on other rows" in warned
    assert "1 prompts have more than one message and were left out" in warned


def test_a_file_that_is_no_session_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"a": 1}])
    assert main(["session", str(path), "--out", str(tmp_path / "y.jsonl")]) == 2
    assert "x.jsonl:1: neither an answer of a run nor a chat (it has a)" in capsys.readouterr().err


def test_a_mixture_says_which_columns_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(3)]
    made(tmp_path / "mix.jsonl", "mix", jsonl(tmp_path / "a.jsonl", rows))
    assert "warning: columns that are left out: rejected (3 rows)" in capsys.readouterr().err
