"""The text that the embedded base is trained on."""

import re
from itertools import chain

import pytest

from trainer.embedded import text
from trainer.embedded.text import Sample

FIRST_THOUSAND_SHA256 = {
    "record": "f83cdd4319cf19ce994501ae5a488446e0d834cbdbc640cf44b04cafd632d77a",
    "short": "2eccd578e057ab43ef67637c9586e50a407c5b8b7a43a537fda4563b5f43265d",
    "long": "b2d22cd1f4cd51d7b1b97b8c260ae296bf7df4de0489373dfb6da82b33b6b356",
}
TABLE_HEADER = re.compile(r"\[\d+[|\t]?\](\{[^}\n]*\})?:")
"""What gives TOON away: `[2]{id,name}:` before a table, `[3]:` before a list."""


def everything(sample: Sample) -> str:
    return "\n".join(message.content for message in sample.messages)


@pytest.mark.parametrize("size", FIRST_THOUSAND_SHA256)
def test_the_text_is_the_same_on_every_machine(size: text.Size) -> None:
    assert text.sha256(text.samples("train", size, 1000)) == FIRST_THOUSAND_SHA256[size]


def test_a_sample_can_be_made_without_those_before_it() -> None:
    assert list(text.samples("train", "short", 20))[19] == text.sample("train", "short", 19)


def test_no_held_out_sample_is_in_the_training_text() -> None:
    known = set(chain(text.samples("train", "record", 5000), text.samples("train", "short", 20_000)))
    assert known.isdisjoint(text.samples("heldout", "short", 400))


def test_toon_does_not_occur() -> None:
    for sample in chain(text.samples("train", "short", 3000), text.samples("train", "long", 500)):
        assert not TABLE_HEADER.search(everything(sample)), everything(sample)
        assert "toon" not in everything(sample).lower()


def test_the_pattern_for_toon_finds_toon() -> None:
    assert TABLE_HEADER.search("items[2]{id,name}:\n  1,Kalo\n  2,Mir")
    assert TABLE_HEADER.search("tags[3]: red,green,blue")


def test_every_chat_ends_with_an_answer() -> None:
    for sample in text.samples("train", "short", 500):
        roles = [message.role for message in sample.messages]
        assert roles == ["document"] or roles[-2:] == ["user", "assistant"]
