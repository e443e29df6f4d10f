"""The embedded base as it ships: loads with transformers alone, reads any text, and has learned something."""

import json
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from trainer.embedded import text
from trainer.embedded.measure import exact_match, first_turn, held_out_loss, unigram_loss
from trainer.embedded.pretrain import DATA_SHA256, SHIPPED
from trainer.embedded.vocabulary import train_tokenizer

EIGHT_MB = 8_000_000
CHAT = [
    {"role": "system", "content": "Answer with the data only."},
    {"role": "user", "content": "convert to csv:\nname=Kalo qty=3"},
    {"role": "assistant", "content": "name,qty\nKalo,3"},
    {"role": "user", "content": "now as json"},
    {"role": "assistant", "content": ' [{"name":"Kalo","qty":3}]\n'},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHIPPED)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(SHIPPED)


def test_everything_that_ships_fits_in_eight_megabytes() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= EIGHT_MB


def test_the_card_names_the_hash_of_the_data() -> None:
    assert DATA_SHA256 in (SHIPPED / "README.md").read_text(encoding="utf-8")


@given(st.text())
def test_any_text_comes_back_unchanged(tokenizer: PreTrainedTokenizerFast, words: str) -> None:
    assert tokenizer.decode(tokenizer.encode(words)) == words


@pytest.mark.parametrize(
    "words", ["  two  blanks ", "\r\n\t\x00", "42 .5 -7,000", "naïve Ελλάδα 漢字 한글 🦊👩‍👩‍👧", "x" * 5000, ""]
)
def test_odd_text_comes_back_unchanged(tokenizer: PreTrainedTokenizerFast, words: str) -> None:
    assert tokenizer.decode(tokenizer.encode(words)) == words


def test_a_text_gets_no_marks_that_it_does_not_have(tokenizer: PreTrainedTokenizerFast) -> None:
    assert not set(tokenizer.encode("plain words")) & set(tokenizer.all_special_ids)


def test_the_marks_differ_and_the_model_knows_them(tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> None:
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}) == 3
    for settings in (model.config, model.generation_config):
        assert settings.eos_token_id == tokenizer.eos_token_id
        assert settings.pad_token_id == tokenizer.pad_token_id
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.max_position_embeddings >= tokenizer.model_max_length >= 1024


def test_the_chat_template_marks_what_the_assistant_says_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    said = [token for token, mask in zip(chat["input_ids"], chat["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(said) == 'name,qty\nKalo,3<|end|> [{"name":"Kalo","qty":3}]\n<|end|>'


def test_a_prompt_ends_where_the_assistant_is_to_speak(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(CHAT[:3], tokenize=False)
    assert prompt.endswith("qty=3<|end|><|assistant|>")
    assert whole == prompt + "name,qty\nKalo,3<|end|>"


def test_an_unknown_role_is_refused_by_name(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="role 'tool' is unknown; use system, user or assistant"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "42"}], tokenize=False)


def test_the_tokenizer_is_made_of_the_generated_text(tokenizer: PreTrainedTokenizerFast) -> None:
    few = train_tokenizer(text.samples("train", "short", 300))
    assert few.get_chat_template() == tokenizer.get_chat_template()
    assert few.all_special_ids == tokenizer.all_special_ids


def test_the_base_is_far_better_than_guessing(tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> None:
    held_out = list(text.samples("heldout", "short", 40))
    own = held_out_loss(model, tokenizer, held_out, answers_only=True)
    guessed = unigram_loss(tokenizer, text.samples("train", "short", 500), held_out, answers_only=True)
    assert own.tokens == guessed.tokens
    assert own.per_token < guessed.per_token / 10


def test_the_base_converts_what_it_has_never_seen(tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> None:
    turns = list(islice((turn for one in text.samples("heldout", "record", 40) if (turn := first_turn(one))), 20))
    assert exact_match(model, tokenizer, turns) >= 0.8


def test_the_base_does_not_know_the_demo_s_form(tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> None:
    lines = Path("configs/data/demo/eval.jsonl").read_text(encoding="utf-8").splitlines()[:16]
    chats = [json.loads(line)["messages"] for line in lines]
    assert exact_match(model, tokenizer, [(chat[:-1], chat[-1]["content"]) for chat in chats]) == 0
