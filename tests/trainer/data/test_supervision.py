"""What the loss counts: the assistant's words and the token that ends them, whatever the chat template looks like."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from tests.trainer import tiny
from trainer.data.bad import NotProven
from trainer.data.rows import Chat, Pair, Row, Text
from trainer.data.tokens import IGNORED, Tokeniser, Tokens, stop_tokens

TURNS = [
    {"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"},
    {"role": "user", "content": "and?"}, {"role": "assistant", "content": "grüß"},
]  # fmt: skip


def tokens(row: Row, tokenizer: PreTrainedTokenizerBase, length: int = 512, **options: bool) -> Tokens:
    return Tokeniser(tokenizer, stop_tokens(tokenizer, None), length, **options).tokens(row)


def counted(row: Tokens, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The supervised runs as text."""
    runs: list[list[int]] = [[]]
    for token, label in zip(row.ids, row.labels, strict=True):
        assert label in (IGNORED, token)
        if label != IGNORED:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


@pytest.mark.parametrize("template", [tiny.CHATML, tiny.MARKED], ids=["by prefixes", "by markers"])
def test_every_answer_is_counted_with_the_token_that_ends_it_and_nothing_else(template: str) -> None:
    tokenizer = tiny.tokenizer(template)
    row = tokens(Chat(TURNS), tokenizer)
    assert counted(row, tokenizer) == ["ho<|im_end|>", "grüß<|im_end|>"]
    assert tokenizer.decode(row.ids[: row.answer_start]).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(row.ids) == tokenizer.apply_chat_template(TURNS, tokenize=False)


def test_a_pair_is_asked_exactly_as_it_was_trained() -> None:
    for template in (tiny.CHATML, tiny.MARKED, None):
        tokenizer = tiny.tokenizer(template)
        row = tokens(Pair("2+2", "4"), tokenizer)
        assert counted(row, tokenizer) == ["4<|im_end|>"]
        asked = [{"role": "user", "content": "2+2"}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) if template else "2+2\n"
        assert row.ids[: row.answer_start] == tokenizer(text)["input_ids"]
        assert (
            Tokeniser(tokenizer, stop_tokens(tokenizer, None), 512).prompt(Pair("2+2", "4"))
            == tokenizer(text)["input_ids"]
        )


def test_text_is_counted_whole_and_ends() -> None:
    tokenizer = tiny.tokenizer(None)
    row = tokens(Text("abc"), tokenizer)
    assert counted(row, tokenizer) == ["abc<|im_end|>"]


def test_train_on_inputs_counts_everything_but_asks_the_same() -> None:
    tokenizer = tiny.tokenizer()
    row = tokens(Pair("2+2", "4"), tokenizer, train_on_inputs=True)
    assert row.labels == row.ids
    assert row.answer_start == tokens(Pair("2+2", "4"), tokenizer).answer_start


def test_a_long_row_is_cut_at_its_end_and_says_by_how_much() -> None:
    tokenizer = tiny.tokenizer(None)
    whole = tokens(Pair("prompt", "completion"), tokenizer)
    row = tokens(Pair("prompt", "completion"), tokenizer, 10)
    assert (row.ids, row.cut) == (whole.ids[:10], len(whole.ids) - 10)
    assert row.supervised == 3


def test_a_template_that_drops_earlier_thoughts_is_understood() -> None:
    # Qwen3 writes an empty thought into the last answer only, so an earlier turn looks different once others follow it.
    template = tiny.CHATML.replace(
        "m['content'] + '<|im_end|>",
        "('(think)\n' if loop.last and m['role'] == 'assistant' else '') + m['content'] + '<|im_end|>",
    )
    tokenizer = tiny.tokenizer(template)
    assert counted(tokens(Chat(TURNS), tokenizer), tokenizer) == ["ho<|im_end|>", "(think)\ngrüß<|im_end|>"]


def test_a_template_that_never_ends_an_answer_is_refused() -> None:
    tokenizer = tiny.tokenizer(tiny.CHATML.replace("<|im_end|>", "."))
    with pytest.raises(NotProven, match="its chat template ends an answer without a stop token"):
        tokens(Chat(TURNS), tokenizer)


@pytest.mark.parametrize("is_special", [True, False])
def test_what_a_template_writes_before_a_call_alone_is_the_assistants_to_write(is_special: bool) -> None:
    """Mistral's templates have no generation prompt, and a call begins with a control token that the model has to choose itself."""
    template = (
        "{%- for m in messages -%}{%- if m['role'] == 'user' -%}{{- '[INST] ' + m['content'] + '[/INST]' -}}"
        "{%- elif m.get('tool_calls') -%}{{- '[TOOL_CALLS] ' + (m['tool_calls'] | tojson) + eos_token -}}"
        "{%- else -%}{{- ' ' + m['content'] + eos_token -}}{%- endif -%}{%- endfor -%}"
    )
    tokenizer = tiny.tokenizer(template)
    if is_special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["[INST]", "[/INST]", "[TOOL_CALLS]"]})
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    turns = [TURNS[1], {"role": "assistant", "content": "", "tool_calls": [call]}, TURNS[3], TURNS[2]]
    first, last = counted(tokens(Chat(turns), tokenizer), tokenizer)
    assert last == "ho<|im_end|>"
    assert first.startswith("[TOOL_CALLS] [" if is_special else "[{") and first.endswith("]<|im_end|>")
    assert "INST" not in first
