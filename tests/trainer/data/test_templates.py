"""Whatever the chat template and whatever is said: of each answer its words and its end token are counted, and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import trl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tests.trainer import tiny
from tests.trainer.data.shapes import BEGIN, CONTROLS, END, Shape
from trainer.data.bad import NotARow, NotProven
from trainer.data.messages import Turn, turns_of
from trainer.data.rows import Chat
from trainer.data.tokens import IGNORED, Tokeniser, Tokens, stop_tokens

EXAMPLES = 4000 if os.environ.get("TORTURE") else 80
SHIPPED = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
"""Templates of the families in use, as TRL brings them: with and without `{% generation %}` markers."""
ENDS = (
    "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|END_OF_TURN_TOKEN|>", "</s>", "<|eot|>",
    "<｜end▁of▁sentence｜>", "<end_of_utterance>", "<|return|>", "<|user|>",
)  # fmt: skip


@cache
def tokenizer_with(controls: tuple[str, ...], added: tuple[str, ...]) -> PreTrainedTokenizerBase:
    tokenizer = tiny.tokenizer(None)
    tokenizer.add_special_tokens({"additional_special_tokens": list(controls)})
    tokenizer.add_tokens(list(added))
    return tokenizer


def runs_of(row: Tokens, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The supervised runs as text."""
    runs: list[list[int]] = [[]]
    for token, label in zip(row.ids, row.labels, strict=True):
        if label != IGNORED:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [str(tokenizer.decode(run)) for run in runs if run]


words = st.lists(
    st.sampled_from([*CONTROLS, "<think>", "</think>", "hi", " ", "\n", "ß", "\u2028", "{{ x }}", "[[", "user", "."]), min_size=1, max_size=6
).map("".join)  # fmt: skip
turns = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words.filter(str.strip)}), min_size=1, max_size=6
).filter(lambda some: any(turn["role"] == "assistant" for turn in some))  # fmt: skip
system = st.one_of(st.just([]), words.filter(str.strip).map(lambda text: [{"role": "system", "content": text}]))
shapes = st.builds(
    Shape, header=st.sampled_from(["special", "line", "words"]), break_after_end=st.booleans(),
    begins=st.integers(0, 2), trailing=st.sampled_from(["", END, BEGIN]), trims=st.booleans(), cuts_thoughts=st.booleans(),
    empty_thought=st.booleans(), opens_thought=st.booleans(), opens_line=st.booleans(), prompts=st.booleans(),
    system=st.sampled_from(["kept", "refused", "merged"]), alternates=st.booleans(),
)  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(shape=shapes, first=system, rest=turns, added=st.booleans())
def test_of_each_answer_the_words_and_the_end_token_are_counted_and_nothing_else(
    shape: Shape, first: list[Turn], rest: list[Turn], added: bool
) -> None:
    tokenizer = tokenizer_with(tuple(CONTROLS), ("<think>", "</think>") if added else ())
    tokenizer.chat_template, tokenizer.bos_token = shape.template(), BEGIN
    said = [*first, *rest]
    wanted = shape.answers(said)
    tokeniser = Tokeniser(tokenizer, stop_tokens(tokenizer, None), 4096)
    if wanted is None:
        with pytest.raises(NotARow):
            tokeniser.tokens(Chat(said))
        return
    row = tokeniser.tokens(Chat(said))
    assert runs_of(row, tokenizer) == wanted
    # Control tokens are the template's alone, whatever stands in the words of the messages.
    rendered = len(said) - (shape.system == "merged" and said[0]["role"] == "system")
    assert row.ids.count(tokenizer.convert_tokens_to_ids(END)) == rendered + (shape.trailing == END)
    assert row.ids[:2] != [tokenizer.bos_token_id] * 2
    # What stands in front of the last answer is the generation prompt, or its beginning where it begins a thought.
    common = shape.opens_thought and not shape.opens_line
    thought = "<think>" if common and shape.empty_thought and said[-1]["role"] == "assistant" else ""
    asked = str(tokenizer.decode(row.ids[: row.answer_start]))
    assert asked.endswith(shape.head_of("assistant") + thought) or not shape.prompts


def a_tokenizer_for(template: str) -> PreTrainedTokenizerBase:
    """Byte-level, with all that looks like a control token in the template; the family's end token as its own."""
    found = sorted(set(re.findall(r"<\|?[\w/▁｜|]+\|?>|\[/?[A-Z_]+\]|\[gMASK\]", template)))
    added = [token for token in found if re.search("think|tool|arg_|function|parameter", token)]
    controls = [token for token in found if token not in added]
    tokenizer = tiny.tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": controls, "bos_token": "<s>"})
    tokenizer.add_tokens(added)
    ends = [token for token in ENDS if token in controls]
    tokenizer.eos_token = ends[0] if ends else "<|im_end|>"
    return tokenizer


CHATS = {
    "two answers": [("user", "Hi there"), ("assistant", "Hello you"), ("user", "And now?"), ("assistant", "Good bye")],
    "a system": [("system", "Be brief"), ("user", "Hi there"), ("assistant", "Hello you")],
    "thoughts": [
        ("user", "Hi there"), ("assistant", "<think>\nhm\n</think>\n\nHello you"), ("user", "And now?"),
        ("assistant", "<think>\nwell\n</think>\n\nGood bye"),
    ],
    "controls said": [("user", "Say <|im_end|><|user|></s>"), ("assistant", "No <|im_end|></s> then")],
}  # fmt: skip
LONGEST_OPENING = len("<|channel|>final<|message|><think>\n\n</think>\n\n<|END_RESPONSE|>")
"""Of what a template may write into an answer beside its words and its end."""


def chat(pairs: Sequence[tuple[str, str]]) -> Chat:
    return Chat(turns_of([{"role": role, "content": content} for role, content in pairs]))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_templates_of_the_families_in_use_show_every_answer(path: Path) -> None:
    tokenizer = a_tokenizer_for(path.read_text(encoding="utf-8"))
    stops = stop_tokens(tokenizer, None)
    tokeniser = Tokeniser(tokenizer, stops, 8192)
    for name, said in CHATS.items():
        if name == "a system" and path.stem in {"gemma", "gemma_training"}:
            with pytest.raises(NotProven, match=r"refuses it \(System role not supported\)"):
                tokeniser.tokens(chat(said))
            continue
        answers = [content for role, content in said if role == "assistant"]
        found = runs_of(tokeniser.tokens(chat(said)), tokenizer)
        assert len(found) == len(answers)
        for run, answer in zip(found, answers, strict=True):
            ends = [token for token in map(tokenizer.decode, stops) if run.endswith(token)]
            assert ends, run
            assert answer.rpartition("</think>")[2].strip() in run
            assert not any(content in run for role, content in said if role != "assistant")
            assert len(run) <= len(answer) + LONGEST_OPENING + len(ends[0])


TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
]  # fmt: skip
CALLS = [
    {"role": "user", "content": "Rain in Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]},
    {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "rain"},
    {"role": "assistant", "content": "It rains."},
]  # fmt: skip


def test_calls_are_counted_with_what_opens_them_or_the_row_is_refused_with_the_reason() -> None:
    shown = []
    for path in SHIPPED:
        tokenizer = a_tokenizer_for(path.read_text(encoding="utf-8"))
        try:
            row = Tokeniser(tokenizer, stop_tokens(tokenizer, None), 8192).tokens(Chat(turns_of(CALLS), TOOLS))
        except NotProven as error:
            reasons = "does not write the tools|leaves out|refuses it|without a stop token"
            assert re.search(reasons, error.what), (path.stem, error.what)
            continue
        call, answer = runs_of(row, tokenizer)
        assert "weather" in call, path.stem
        assert "Oslo" in call and "rain" not in call
        assert "It rains." in answer
        shown.append(path.stem)
    families = {
        "qwen2_5",
        "qwen3",
        "qwen3_5_think",
        "llama3_1",
        "gptoss",
        "lfm2_2_5",
        "nemotron_3_nano",
        "muse_glimmer",
    }
    assert families <= set(shown)


def test_a_template_may_put_words_in_by_a_format() -> None:
    tokenizer = a_tokenizer_for(
        "{% for m in messages %}{{ '<|%s|>%s<|end|>' | format(m.role, m.content) }}{% endfor %}<|user|><|end|>"
    )
    row = Tokeniser(tokenizer, stop_tokens(tokenizer, None), 512).tokens(chat(CHATS["two answers"]))
    assert runs_of(row, tokenizer) == ["Hello you<|end|>", "Good bye<|end|>"]
