"""The text that the embedded base is trained on."""

import re
from itertools import chain

import pytest

from trainer.embedded import text
from trainer.embedded.text import Sample

FIRST_SHA256 = {
    "record": "2ea4361913b6898c8e9e7ce199f06f1c30370eec072ca8c121093cb627ca37ea",
    "short": "109a954b6d56802b0429417a26cb546888ed8ba8256d6acc0327f724a1d82a6b",
    "long": "083e071ad73abf3d5bd4c8cedd143acdc28ed7b5c2b15f8b7ec98a1b2f1b92fa",
}
TABLE_HEADER = re.compile(r"\[\d+[|\t]?\](\{[^}\n]*\})?:")
"""What gives TOON away: `[2]{id,name}:` before a table, `[3]:` before a list."""


def everything(sample: Sample) -> str:
    return "\n".join(message.content for message in sample.messages)


@pytest.mark.parametrize("size", FIRST_SHA256)
def test_the_text_is_the_same_on_every_machine(size: text.Size) -> None:
    assert text.sha256(text.samples("train", size, 200)) == FIRST_SHA256[size]


def test_a_sample_can_be_made_without_those_before_it() -> None:
    assert list(text.samples("train", "short", 20))[19] == text.sample("train", "short", 19)


def test_no_held_out_sample_is_in_the_training_text() -> None:
    known = set(chain(text.samples("train", "record", 1000), text.samples("train", "short", 4000)))
    assert known.isdisjoint(text.samples("heldout", "short", 400))


def test_toon_does_not_occur() -> None:
    for sample in chain(text.samples("train", "short", 2000), text.samples("train", "long", 200)):
        assert not TABLE_HEADER.search(everything(sample)), everything(sample)
        assert "toon" not in everything(sample).lower()


def test_the_pattern_for_toon_finds_toon() -> None:
    assert TABLE_HEADER.search("items[2]{id,name}:\n  1,Kalo\n  2,Mir")
    assert TABLE_HEADER.search("tags[3]: red,green,blue")


def test_every_chat_ends_with_an_answer() -> None:
    for sample in text.samples("train", "short", 500):
        roles = [message.role for message in sample.messages]
        assert roles == ["document"] or roles[-2:] == ["user", "assistant"]
