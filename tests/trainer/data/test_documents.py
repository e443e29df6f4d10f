"""Documents: what stands around one, how they are cut into sequences, and what the loss leaves out; a token of the tiny base is a byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel

import toon
from swarm.errors import UserError
from swarm.settings import Dataset, Part, StreamSettings
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from trainer.data.documents import Cutting, ids_of_document
from trainer.data.prepared import HELD_OUT, TRAIN, read_rows
from trainer.data.tokens import IGNORED, Tokens

Make = Callable[..., StreamSettings]
TOKENIZER = tiny.tokenizer()
END = TOKENIZER.eos_token_id
A, B = b"a" * 16, b"b" * 16


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def words(row: Tokens) -> str:
    return str(TOKENIZER.decode(row.ids)).replace("<|im_end|>", "$")


def part(**settings: Any) -> Part:
    own = {"base_model": "x", "datasets": [{"path": "a.txt", "type": "document"}], "sequence_len": 8}
    return Part.model_validate({**own, **settings})


def cut(texts: list[str], **settings: Any) -> list[str]:
    """Sequences to train on, of documents in this order."""
    cutting = Cutting.of(part(**settings), TOKENIZER)
    slicer = cutting._slicer(drop_tails=cutting.settings.drop_tails)
    documents = (Tokens(ids(text), ids(text), 0, fingerprint=bytes([number]) * 16) for number, text in enumerate(texts))
    return [words(row) for row in slicer.sequences(documents, keeps_last=False)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [*ids("abc"), END]),
        ({"document_suffix": ""}, ids("abc")),
        ({"document_suffix": "!\n"}, ids("abc!\n")),
        ({"document_suffix": 7}, [*ids("abc"), 7]),
        ({"document_suffix": [7, 9]}, [*ids("abc"), 7, 9]),
        ({"document_suffix": "<|im_end|>"}, [*ids("abc"), END]),
        ({"document_suffix": []}, ids("abc")),
        ({"document_prefix": ""}, [*ids("abc"), END]),
        ({"document_prefix": "# "}, [*ids("# abc"), END]),
        ({"document_prefix": 5}, [5, *ids("abc"), END]),
        ({"document_prefix": [5, 6], "document_suffix": ""}, [5, 6, *ids("abc")]),
    ],
    ids=str,
)
def test_what_stands_before_and_behind_a_document(given: dict[str, Any], expected: list[int]) -> None:
    """C36, C37: nothing, text that is tokenised with it, one id or several; the end token where nothing is said."""
    assert ids_of_document("abc", Dataset(path="a.txt", type="document", **given), TOKENIZER) == expected


def test_a_space_before_each_document_gives_the_tokens_of_a_tokenizer_that_adds_one() -> None:
    """C30: what `--add-prefix-space` asks a tokenizer for."""
    adding = tiny.tokenizer()
    adding.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    wanted = adding("abc", add_special_tokens=False)["input_ids"]
    assert wanted != ids("abc")
    assert ids_of_document("abc", Dataset(path="a.txt", type="document", document_prefix=" "), TOKENIZER) == [
        *wanted,
        END,
    ]


def test_a_begin_token_that_a_document_brings_along_is_taken_off() -> None:
    """C41."""
    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    plain = Dataset(path="a.txt", type="document", document_suffix="")
    assert ids_of_document("<|im_start|>abc", plain, tokenizer) == ids("abc")
    assert ids_of_document("<|im_start|>", Dataset(path="a.txt", type="document"), tokenizer) == [], "nothing else"
    asked_for = plain.model_copy(update={"document_prefix": "<|im_start|>"})
    assert ids_of_document("abc", asked_for, tokenizer) == [tokenizer.bos_token_id, *ids("abc")]


@pytest.mark.parametrize(
    ("texts", "settings", "expected"),
    [
        (["abcdefgh"], {}, ["abcdefgh"]),
        (["abcdefg"], {}, []),
        (["abcde", "fghij", "klm", "n"], {}, ["abcdefgh"]),
        (["abcde", "fghijklmnopq"], {}, ["abcdefgh", "ijklmnop"]),
        (["abcde", "fghijklmnopq", "rstuvwxyz"], {"drop_tails": True}, ["abcdefgh", "rstuvwxy"]),
        (["abcdefghijklmnopqrstuvwxyz"], {"drop_tails": True}, ["abcdefgh"]),
        (["abcdefghijklmn"], {"sequence_prefix": "> "}, ["> abcdef", "> ghijkl"]),
        (["abcdefghijklmn"], {"sequence_prefix": END}, ["$abcdefg", "$hijklmn"]),
        (["abcdefghijklmn"], {"sequence_prefix": ids("xy")}, ["xyabcdef", "xyghijkl"]),
        (["abcdefghijklmn"], {"sequence_prefix": ""}, ["abcdefgh"]),
        (["abcdefghij", "klm", "n"], {"isolate_documents": True}, ["abcdefgh", "ij", "klm"]),
        (["abcdefghij", "kl"], {"isolate_documents": True, "drop_tails": True}, ["abcdefgh", "kl"]),
        (["abcdefghij", "n"], {"isolate_documents": True, "sequence_prefix": ">"}, [">abcdefg", ">hij", ">n"]),
    ],
    ids=str,
)
def test_documents_are_put_end_to_end_and_cut(texts: list[str], settings: dict[str, Any], expected: list[str]) -> None:
    """C38, C40: an end that fills no sequence is left out; isolated, a document of one token teaches nothing."""
    assert cut(texts, **settings) == expected


def test_a_sequence_begins_with_the_begin_token_where_the_base_has_one() -> None:
    """C38."""
    tokenizer = tiny.tokenizer()
    tokenizer.bos_token = "<|im_start|>"
    assert Cutting.of(part(), tokenizer).prefix == [tokenizer.bos_token_id]
    assert Cutting.of(part(sequence_prefix=""), tokenizer).prefix == []
    assert Cutting.of(part(), TOKENIZER).prefix == []


@pytest.mark.parametrize(
    ("mask", "expected"),
    [(False, "abXa"), (True, "ab.a"), (ids("a")[0], ".bX."), ([*ids("b"), END], "a..a"), ([], "abXa")],
    ids=str,
)
def test_masked_tokens_are_read_and_not_learned(mask: bool | int | list[int], expected: str) -> None:
    """C39: all special tokens, one id, several; X stands for the end token."""
    cutting = Cutting.of(part(mask_tokens=mask), TOKENIZER)
    document = [*ids("ab"), END, *ids("a")]
    (row,) = cutting.held_out([(0, Tokens(document, document, 0, fingerprint=A))], cutting.settings.datasets)
    assert row.ids == document
    shown = "".join(
        "." if label == IGNORED else "X" if label == END else TOKENIZER.decode([label]) for label in row.labels
    )
    assert shown == expected


def test_a_sequence_knows_the_documents_that_it_was_cut_out_of() -> None:
    cutting = Cutting.of(part(), TOKENIZER)
    rows = [(0, Tokens(ids(text), ids(text), 0, fingerprint=mark)) for text, mark in (("abcde", A), ("fghijk", B))]
    assert [row.documents for row in cutting.held_out(rows, cutting.settings.datasets)] == [{A, B}, {B}]


@pytest.mark.parametrize(
    ("settings", "where", "what"),
    [
        ({"sequence_prefix": "12345678"}, "sequence_prefix", "leave no room in a sequence of 8"),
        ({"sequence_prefix": 9999}, "sequence_prefix", "9999 is no token of the base"),
        ({"mask_tokens": [3, -1]}, "mask_tokens", "-1 is no token of the base"),
    ],
)
def test_what_the_base_has_no_token_for_is_refused(settings: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        Cutting.of(part(**settings), TOKENIZER)
    assert caught.value.where == where


# ---- prepared ----


def documents(folder: Path, name: str, word: str, count: int) -> dict[str, str]:
    path = folder / name
    path.write_text("".join(json.dumps({"text": f"{word}{number:02} " * 5}) + "\n" for number in range(count)))
    return {"path": str(path), "type": "document"}


def prepared(bench: Bench, settings: StreamSettings) -> tuple[list[Tokens], list[Tokens]]:
    folder = bench.place.run_folder / bench.do("prepare", settings)["prepared"].path
    return list(read_rows(folder / TRAIN)), list(read_rows(folder / HELD_OUT))


def test_documents_are_held_out_whole_and_no_sequence_has_a_part_of_both(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    """C28, C40: 20 documents of 21 tokens; what is held out is judged to its end."""
    given = settings(datasets=[documents(tmp_path, "a.jsonl", "a", 20)], sequence_len=32, val_set_size=3)
    train, held_out = prepared(bench, given)
    assert {len(row.ids) for row in train} == {32} and len(train) == 17 * 21 // 32
    assert sum(len(row.ids) for row in held_out) == 3 * 21
    both = frozenset().union(*(row.documents for row in train)) & frozenset().union(
        *(row.documents for row in held_out)
    )
    assert not both
    again, _ = prepared(Bench(tmp_path / "again"), given)
    assert [row.ids for row in again] == [row.ids for row in train]


def test_datasets_are_cut_apart_or_mixed_before(bench: Bench, settings: Make, tmp_path: Path) -> None:
    """C40."""
    listed = [documents(tmp_path, "a.jsonl", "a", 12), documents(tmp_path, "b.jsonl", "b", 12)]
    held = [documents(tmp_path, "c.jsonl", "c", 2)]
    for mixes in (False, True):
        train, _ = prepared(bench, settings(datasets=listed, test_datasets=held, sequence_len=48, mix_datasets=mixes))
        assert any("a" in words(row) and "b" in words(row) for row in train) == mixes
        assert any("a" in words(row) for row in train) and any("b" in words(row) for row in train)


def test_only_so_many_tokens_of_a_dataset_and_so_many_sequences_of_all(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    """C37, C40: sequences are drawn of all datasets, not of the first one alone."""
    listed = [documents(tmp_path, "a.jsonl", "a", 30), documents(tmp_path, "b.jsonl", "b", 30)]
    held = [documents(tmp_path, "c.jsonl", "c", 2)]
    few = [{**listed[0], "max_tokens": 100}, listed[1]]
    train, _ = prepared(bench, settings(datasets=few, test_datasets=held, sequence_len=21))
    assert sum("a" in words(row) for row in train) == 4  # of 21 tokens each
    train, _ = prepared(bench, settings(datasets=listed, test_datasets=held, sequence_len=21, max_sequences=12))
    assert len(train) == 12 and 0 < sum("a" in words(row) for row in train) < 12


def test_text_files_and_blank_documents(bench: Bench, settings: Make, tmp_path: Path) -> None:
    """C35, C41: a document a file; one without a word is counted and left out."""
    for name, text in (("a", "the first"), ("b", " \n"), ("c", "the third"), ("d", "the fourth")):
        (tmp_path / f"{name}.txt").write_text(text)
    given = settings(datasets=[{"path": str(tmp_path / "*.txt"), "type": "document"}], sequence_len=8, val_set_size=1)
    said = bench.do("prepare", given)["prepared"]
    assert f"1 documents without a word were left out ({tmp_path / 'b.txt'})" in said.body
    assert "documents are held out whole" in said.body and "are in no sequence" in said.body


def test_the_lines_of_a_text_file_end_alike_however_it_was_saved(bench: Bench, settings: Make, tmp_path: Path) -> None:
    """C35: as Python and `datasets` read text; what stands in a string of JSON stays."""
    lines = "one\ntwo\n\nthree and more"
    for name, text in (("a", lines), ("b", "\ufeff" + lines.replace("\n", "\r\n")), ("c", lines.replace("\n", "\r"))):
        (tmp_path / f"{name}.txt").write_bytes(text.encode())
    given = {"path": str(tmp_path / "*.txt"), "type": "document"}
    held = [documents(tmp_path, "held.jsonl", "h", 2)]
    train, _ = prepared(bench, settings(datasets=[given], test_datasets=held, sequence_len=len(lines) + 1))
    assert [words(row) for row in train] == [f"{lines}$"] * 3


def test_documents_that_fill_no_sequence_are_refused(bench: Bench, settings: Make, tmp_path: Path) -> None:
    given = settings(datasets=[documents(tmp_path, "a.jsonl", "a", 3)], sequence_len=64, val_set_size=1)
    with pytest.raises(UserError, match="do not fill one sequence"):
        bench.do("prepare", given)


def test_a_mask_that_leaves_nothing_to_learn_is_named_and_not_the_length(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    """C39."""
    given = {"datasets": [documents(tmp_path, "a.jsonl", "a", 12)], "sequence_len": 16, "val_set_size": 1}
    with pytest.raises(UserError, match=r"^mask_tokens: it masks every token of the \d+ sequences to train on; mask f"):
        bench.do("prepare", settings(**given, mask_tokens=list(range(len(TOKENIZER)))))


@pytest.mark.parametrize("ending", ["json", "toon"])
def test_a_list_of_texts_is_one_of_documents(bench: Bench, settings: Make, tmp_path: Path, ending: str) -> None:
    """C35, C54: as a list of objects with `text`."""
    texts = [f"a document {number} " * 3 for number in range(12)]
    for name, listed in (("bare", texts), ("named", [{"text": text} for text in texts])):
        written = json.dumps(listed) if ending == "json" else toon.encode(listed)
        (tmp_path / f"{name}.{ending}").write_text(written)
    marks = []
    for name in ("bare", "named"):
        given = {"datasets": [{"path": str(tmp_path / f"{name}.{ending}"), "type": "document"}], "val_set_size": 2}
        rows = prepared(Bench(tmp_path / name), settings(**given, sequence_len=16))
        marks.append({mark for row in [*rows[0], *rows[1]] for mark in row.documents})
    assert marks[0] == marks[1] and len(marks[0]) == len(texts)


def test_an_id_around_documents_that_is_no_token_is_the_settings_fault_and_no_rows(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    given = settings(datasets=[{**documents(tmp_path, "a.jsonl", "a", 12), "document_suffix": 10**6}], val_set_size=1)
    with pytest.raises(UserError, match=r"^document_suffix: 1000000 is no token of the base, which has 0 to"):
        bench.do("prepare", given)


def test_a_held_out_document_that_is_trained_on_is_refused(bench: Bench, settings: Make, tmp_path: Path) -> None:
    train, held = documents(tmp_path, "a.jsonl", "a", 12), documents(tmp_path, "b.jsonl", "a", 2)
    with pytest.raises(UserError, match="equal held-out rows"):
        bench.do("prepare", settings(datasets=[train], test_datasets=[held], sequence_len=32))


@pytest.mark.parametrize("more", [{}, {"isolate_documents": True, "packing": "bfd"}])
def test_a_stream_learns_from_documents(bench: Bench, settings: Make, tmp_path: Path, more: dict[str, Any]) -> None:
    """4.E e; isolated ones are packed, and the loop's own probe finds that none sees another."""
    given = settings(datasets=[documents(tmp_path, "a.jsonl", "a", 40)], sequence_len=48, max_steps=8, **more)
    trained = bench.trained(given)["trained"]
    assert trained.figures["loss"] < trained.figures["first_loss"]
