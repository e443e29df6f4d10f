"""The boundary round a row: whatever stands in one costs that row alone, and what is learned of the others is exactly theirs."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from swarm.errors import UserError
from swarm.settings import Dataset, StreamSettings
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from tests.trainer.data.test_templates import runs_of
from trainer.data.bad import BadRow, NotARow
from trainer.data.boundary import GoodRow, RowBoundary
from trainer.data.messages import turns_of
from trainer.data.rows import Chat, Pair, Row, Text
from trainer.data.tokens import Tokeniser, Tokens, stop_tokens

Make = Callable[..., StreamSettings]


def tokens(row: Row, tokenizer: PreTrainedTokenizerBase, length: int = 512, **options: Any) -> Tokens:
    return Tokeniser(tokenizer, stop_tokens(tokenizer, None), length, **options).tokens(row)


def learned(messages: list[Any], tokenizer: PreTrainedTokenizerBase | None = None, **options: Any) -> list[str]:
    tokenizer = tokenizer or tiny.tokenizer()
    return runs_of(tokens(Chat(turns_of(messages)), tokenizer, **options), tokenizer)


# ---- rows that are odd ----

ODD = [
    b"", b"null", b"[]", b"3", b"{", b'"\\ud800"', b"\xff\xfe\x00", b"{}", b'{"messages": null}', b'{"messages": []}',
    b'{"messages": "hi"}', b'{"messages": [[]]}', b'{"messages": [{"role": "user"}]}', b'{"messages": [{"role": 3, "content": 4}]}',
    b'{"messages": [{"role": "user", "content": "hi"}]}', b'{"messages": [{"role": "user", "content": {"a": 1}}]}',
    b'{"messages": [{"role": "assistant", "content": "\\ud800"}]}', b'{"messages": [{"role": "assistant", "content": " "}]}',
    b'{"messages": [{"role": "assistant", "content": [{"type": "image", "url": "x"}]}]}',
    b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}',
    b'{"messages": [{"role": "assistant", "tool_calls": 3}]}', b'{"messages": [{"from": "nobody", "value": "x"}]}', b'{"messages": [{"from": {}, "value": "x"}]}',
    b'{"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]}', b'{"a":' * 3000,
    b'{"messages": [{"role": "assistant", "content": "a", "weight": 0}]}', b"1" * 6000, b'{"messages": {"role": "user"}}',
    b'{"messages": [{"role": "assistant", "content": "a"}], "tools": "x"}', b'{"messages": [1], "messages": [2]}',
]  # fmt: skip


def test_no_row_of_any_kind_ends_a_stream_that_skips_bad_rows(bench: Bench, settings: Make, tmp_path: Path) -> None:
    good = [
        json.dumps(
            {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        ).encode()
        for n in range(20)
    ]
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"\n".join([*good[:10], *ODD, *good[10:]]) + b"\n")
    given = {"datasets": [{"path": str(path)}], "val_set_size": 4}
    done = bench.do("prepare", settings(**given, on_bad_row="skip"))["prepared"]
    assert (done.rows, done.held_out, done.bad) == (16, 4, len(ODD) - 1)  # an empty line is no row
    assert sum("odd.jsonl:" in line for line in done.body.splitlines()) == 10
    folder = bench.place.run_folder / done.path
    kept = [json.loads(line) for line in (folder / "bad_rows.jsonl").read_text("ascii").splitlines()]
    assert [row["text"].encode("utf-8", "surrogateescape") for row in kept] == ODD[1:]
    with pytest.raises(UserError) as caught:
        bench.do("prepare", settings(**given))
    assert str(caught.value).startswith(
        f"{path}:12: a JSON NoneType, not an object (and {len(ODD) - 2} more bad rows: "
    )
    assert str(caught.value).endswith("write one JSON object per line, or set on_bad_row: skip")


def test_the_base_is_blamed_only_where_it_refuses_every_row(bench: Bench, settings: Make, tmp_path: Path) -> None:
    base = tiny.save_base(tmp_path / "base", tiny.CHATML.replace("<|im_end|>", "."))
    path = tmp_path / "x.jsonl"
    refused = json.dumps({"messages": [ASKED, WRONG, SURE, RIGHT]}) + "\n"
    given = settings(base_model=str(base), datasets=[{"path": str(path)}], on_bad_row="skip")
    path.write_text(refused * 3)
    with pytest.raises(
        UserError, match=r"base_model: its chat template ends .* \(so for all 3 rows\); give the base a"
    ):
        bench.do("prepare", given)
    path.write_text(refused * 3 + json.dumps({"messages": 3}) + "\n")
    with pytest.raises(UserError, match=r"datasets: no row is left to use \(4 bad, 0 cut before their answer\)"):
        bench.do("prepare", given)


def test_columns_that_nothing_reads_are_told(bench: Bench, settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"prompt": f"p{n}", "completion": "c", "source": "web"} for n in range(9)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "p", "completion": "d", "id": 3}\n')
    done = bench.do("prepare", settings(datasets=[{"path": str(path), "type": "prompt_completion"}], val_set_size=2))
    assert done["prepared"].body == "columns that are not used: id (1 rows), source (9 rows)"


def test_a_row_of_many_megabytes_costs_what_is_kept_of_it(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    text = "a few words, again and again. " * 400_000  # 12 MB
    path.write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "x" * len(text)}) + "\n")
    tokenizer = tiny.tokenizer()
    boundary = RowBoundary(Tokeniser(tokenizer, stop_tokens(tokenizer, None), 256))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    rows = list(boundary.rows([Dataset(path=str(path), type="text")]))
    assert all(isinstance(row, GoodRow) and len(row.row.ids) == 256 for row in rows)
    assert [row.row.cut // 1_000_000 for row in rows if isinstance(row, GoodRow)] == [11, 11]
    assert time.process_time() - began < 5
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    )  # kB; the tokens of all would take gigabytes


def test_a_long_text_has_the_tokens_that_it_would_have_whole() -> None:
    tokenizer = tiny.tokenizer()
    text = "grüße 你好 " * 3000
    assert tokens(Text(text), tokenizer, 300).ids == tokenizer(text)["input_ids"][:300]
    row = tokens(
        Chat(turns_of([{"role": "user", "content": "q"}, {"role": "assistant", "content": text}])), tokenizer, 300
    )
    assert row.labels[-100:] == row.ids[-100:]
    assert row.cut > 10_000


# ---- equal rows ----


def test_rows_that_a_reader_would_call_equal_are_held_out_together_or_not_at_all(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    rows = [{"prompt": f"Double {n}", "completion": f"it is {2 * n}"} for n in range(12)]
    again = [{"prompt": f" double\u00a0{n} ", "completion": f"IT is  {2 * n}"} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *again]))
    given = settings(datasets=[{"path": str(path), "type": "prompt_completion"}], val_set_size=5)
    done = bench.do("prepare", given)["prepared"]
    assert (done.rows, done.held_out) == (20, 4)
    assert "4 rows are held out, not 5: equal rows stay together" in done.body


def test_data_that_is_one_row_again_and_again_cannot_be_split(bench: Bench, settings: Make, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 30)
    with pytest.raises(UserError, match="all 30 rows are equal: none can be held out"):
        bench.do("prepare", settings(datasets=[{"path": str(path), "type": "prompt_completion"}]))


# ---- what is learned of a conversation ----

ASKED, WRONG, SURE, RIGHT = (
    {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}, {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "No, 4"},
)  # fmt: skip
ALL = ["5<|im_end|>", "No, 4<|im_end|>"]


def test_the_author_of_a_row_says_which_answers_are_learned() -> None:
    assert learned([ASKED, WRONG, SURE, RIGHT]) == ALL
    assert learned([ASKED, WRONG, SURE, RIGHT], train_on="last") == ALL[1:]
    for mark in ({"weight": 0}, {"train": False}, {"weight": 0, "train": True}):
        assert learned([ASKED, {**WRONG, **mark}, SURE, RIGHT]) == ALL[1:]
    for mark in ({"weight": 1}, {"train": True}):
        assert learned([ASKED, {**WRONG, **mark}, SURE, RIGHT], train_on="marked") == ALL[:1]
    for options, said in ({"train_on": "marked"}, RIGHT), ({"train_on": "last"}, {**RIGHT, "weight": 0}):
        with pytest.raises(NotARow, match="no message to train on"):
            learned([ASKED, WRONG, SURE, said], **options)
    with pytest.raises(NotARow, match="message 1 is the user's and is marked for training"):
        learned([{**ASKED, "train": True}, WRONG])


def test_messages_are_read_as_their_tools_write_them() -> None:
    parts = [{"type": "text", "text": "5"}, "!"]
    assert learned([ASKED, {"role": "assistant", "content": parts}]) == ["5!<|im_end|>"]
    sharegpt = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "5"}]
    assert learned(sharegpt) == ALL[:1]
    assert learned([{"from": "system", "value": "be kind"}, *sharegpt]) == ALL[:1]
    assert learned(json.dumps(sharegpt)) == ALL[:1]  # type: ignore[arg-type]  # a column of JSON text
    assert learned([WRONG, SURE, RIGHT]) == ALL  # the assistant begins


def test_calls_are_turned_into_what_templates_read() -> None:
    call = {"function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
    (turn,) = turns_of([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert turn == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "clock", "arguments": {"zone": "UTC"}}}],
    }
    asked = [
        {"from": "function_call", "value": '{"name": "clock", "arguments": {}}'},
        {"from": "observation", "value": {"hour": 3}},
    ]
    assert turns_of(asked) == [
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "clock", "arguments": {}}}]},
        {"role": "tool", "content": '{"hour": 3}'},
    ]  # fmt: skip


# ---- control tokens ----


def metaspace(scheme: str) -> PreTrainedTokenizerBase:
    """Llama's way with spaces: one in front of the first word, or of every piece of text."""
    alphabet = [*map(chr, range(33, 127)), "▁", "\n", "▁h", "hi", "▁hi"]
    marks = ["<unk>", "<s>", "</s>"]
    inner = Tokenizer(
        BPE(
            vocab={word: index for index, word in enumerate([*marks, *alphabet])},
            merges=[("▁", "h"), ("h", "i"), ("▁h", "i")],
            unk_token="<unk>",
        )
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
    inner.add_special_tokens(marks)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    template = "{{- bos_token -}}{%- for m in messages -%}{{- ('[INST] ' + m.content + ' [/INST] ') if m.role == 'user' else m.content + eos_token -}}{%- endfor -%}"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=template
    )


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_control_tokens_in_somebodys_text_stay_text_and_all_others_are_as_the_tokenizer_has_them(scheme: str) -> None:
    tokenizer = metaspace(scheme)
    plain = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hi hi"}]
    row = tokens(Chat(plain), tokenizer)
    assert row.ids == tokenizer.apply_chat_template(plain, tokenize=True)["input_ids"]
    assert [run.strip() for run in runs_of(row, tokenizer)] == ["hi hi</s>"]
    forged = tokens(Chat([{"role": "user", "content": "hi</s>"}, plain[1]]), tokenizer)
    ends = [token for token in forged.ids if token in {1, 2}]
    assert ends == [1, 2]
    assert forged.ids[-9:] == row.ids[-9:]  # what stands behind the user's words is the same
    assert "</s>" in str(tokenizer.decode(forged.ids[1:-1]))


def test_thoughts_of_an_answer_keep_their_marks_and_a_users_do_not() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML.replace("assistant\n'", "assistant\n<think>'"))
    tokenizer.add_tokens(["<think>"])
    think = tokenizer.convert_tokens_to_ids("<think>")
    row = tokens(
        Chat([{"role": "user", "content": "<think>"}, {"role": "assistant", "content": "<think>so"}]), tokenizer
    )
    assert row.ids.count(think) == 1
    assert runs_of(row, tokenizer) == ["<think>so<|im_end|>"]


# ---- begin and end ----


def with_begin(template: str | None) -> PreTrainedTokenizerBase:
    tokenizer = tiny.tokenizer(template)
    tokenizer.bos_token = "<|im_start|>"
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start), ("<|im_end|>", end)]
    )
    return tokenizer


@pytest.mark.parametrize("template", [None, tiny.CHATML], ids=["a base", "an instruct model"])
def test_plain_text_begins_and_ends_as_the_tokenizer_would_and_once(template: str | None) -> None:
    tokenizer = with_begin(template)
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    bare = tokenizer("words", add_special_tokens=False)["input_ids"]
    for text in ("words", "<|im_start|>words", "words<|im_end|>", "words<|im_end|>\n"):
        row = tokens(Text(text), tokenizer)
        assert row.ids[: len(bare) + 2] == [begin, *bare, end], text
        assert row.ids.count(end) == 1
    row = (
        tokens(Pair("<|im_start|>words", "so<|im_end|>"), tokenizer)
        if template is None
        else tokens(Text("x"), tokenizer)
    )
    assert (row.ids.count(begin), row.ids.count(end)) == (1, 1)
    assert row.ids[0] == begin


def test_between_prompt_and_completion_stands_what_the_user_wants() -> None:
    tokenizer = tiny.tokenizer(None)
    row = tokens(Pair("Q: 2+2", "4", "\nA: "), tokenizer)
    assert tokenizer.decode(row.ids) == "Q: 2+2\nA: 4<|im_end|>"
    assert runs_of(row, tokenizer) == ["4<|im_end|>"]


def test_a_tokenizer_that_tells_no_places_gives_the_same_spans() -> None:
    tokenizer = ByT5Tokenizer(extra_ids=0, additional_special_tokens=["<|u|>", "<|a|>", "<|e|>"])
    tokenizer.chat_template = "{%- for m in messages -%}{{- '<|' + m.role[0] + '|>' + m.content + '<|e|>' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|a|>' -}}{%- endif -%}"
    assert not tokenizer.is_fast
    row = tokens(Chat([{"role": "user", "content": "hi <|e|>"}, {"role": "assistant", "content": "grüß"}]), tokenizer)
    assert runs_of(row, tokenizer) == ["grüß<|e|>"]
    assert row.ids.count(tokenizer.convert_tokens_to_ids("<|e|>")) == 2
    assert tokenizer.decode(row.ids) == "<|u|>hi <|e|><|e|><|a|>grüß<|e|>"
    (plain,) = runs_of(tokens(Text("abc"), tokenizer), tokenizer)
    assert plain == "abc</s>"


def test_a_tokenizer_whose_pad_token_is_its_end_token_keeps_the_end() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert learned([ASKED, WRONG], tokenizer) == ALL[:1]
    tokenizer.pad_token = None
    assert learned([ASKED, WRONG], tokenizer) == ALL[:1]


def test_bad_rows_carry_their_place(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": ""}\n')
    tokenizer = tiny.tokenizer()
    (bad,) = RowBoundary(Tokeniser(tokenizer, stop_tokens(tokenizer, None), 64)).rows(
        [Dataset(path=str(path), type="text")]
    )
    assert isinstance(bad, BadRow)
    assert str(bad) == f"{path}:1: column 'text' is empty; fill it, or leave the row out"
