"""Samples as rows of tokens, for training the embedded base."""

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainer.embedded import text
from trainer.embedded.pretrain import LONG_ROWS_EVERY, RECORD_STEPS, SHIPPED, STEPS, size_at
from trainer.embedded.rows import Row, packed, row, tensors
from trainer.embedded.text import Message, Sample

CHAT = Sample((Message("user", "how many records:\nqty=3"), Message("assistant", "1")))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(SHIPPED)


def test_a_row_is_what_the_chat_template_writes(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": message.role, "content": message.content} for message in CHAT.messages]
    assert tokenizer.decode(row(CHAT, tokenizer).ids) == tokenizer.apply_chat_template(messages, tokenize=False)


def test_the_answer_and_its_end_weigh_most_and_an_opening_mark_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    one = row(CHAT, tokenizer)
    assert one.weights[-3:] == [0.0, 1.0, 1.0]
    assert max(one.weights[:-3]) == 0.1
    assert one.weights[0] == 0.0


def test_rows_that_share_a_row_stay_whole_and_none_is_lost() -> None:
    rows = [Row([place] * length, [1.0] * length) for place, length in enumerate((5, 3, 4, 2, 6, 1, 7, 9))]
    joined = list(packed(rows, row_tokens=8))
    assert all(len(one.ids) == len(one.weights) <= 8 for one in joined)
    assert sorted(token for one in joined for token in one.ids) == [token for one in rows[:-1] for token in one.ids]


def test_packing_leaves_few_places_empty(tokenizer: PreTrainedTokenizerFast) -> None:
    joined = list(packed((row(sample, tokenizer) for sample in text.samples("train", "short", 1000)), row_tokens=256))
    assert sum(len(one.ids) for one in joined) > 0.9 * 256 * len(joined)


def test_short_rows_of_a_batch_are_filled_up_with_targets_that_weigh_nothing() -> None:
    ids, weights = tensors([Row([7, 8, 9], [0.0, 1.0, 1.0]), Row([5], [1.0])], pad_id=0)
    assert ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert weights.tolist() == [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]


def test_single_records_come_first_and_full_rows_come_regularly_after() -> None:
    sizes = [size_at(step) for step in range(STEPS)]
    assert set(sizes[:RECORD_STEPS]) == {"record"}
    assert sizes[RECORD_STEPS:].count("long") == pytest.approx((STEPS - RECORD_STEPS) / LONG_ROWS_EVERY, abs=1)
    assert "record" not in sizes[RECORD_STEPS:]
