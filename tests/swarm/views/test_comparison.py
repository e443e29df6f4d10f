"""The page and the tables of a comparison: counted right, escaped, and without anything from the network."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from swarm.views.comparison import Comparison, page

HOSTILE = '<script src="https://evil.example/x.js"></script><img src=x onerror=alert(1)>\x1b[2J &amp; "quoted"'
ABOUT: dict[str, Any] = {
    "base": "tiny-toon", "models": ["tiny-toon", "lora-8"], "system": None, "temperature": 0.0, "top_p": 1.0, "seed": 0,
    "max_new_tokens": 64, "base_in_nf4": False, "prompts": 2,
}  # fmt: skip


def answer(model: str, text: str, ended: str = "stop", tokens: int = 10, seconds: float = 0.5) -> dict[str, Any]:
    figures = {"prompt_tokens": 5, "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds}
    return {"model": model, "text": text, "ended": ended, **figures}


def comparison() -> Comparison:
    rows = [
        {
            "number": 1,
            "prompt": HOSTILE,
            "answers": [answer("tiny-toon", "a"), answer("lora-8", HOSTILE, "length", 30)],
        },
        {"number": 2, "prompt": "hi", "answers": [answer("tiny-toon", "b"), answer("lora-8", "b")]},
    ]
    return Comparison(ABOUT, rows)


class Page(HTMLParser):
    """What a browser would see: tags, attributes, and text outside of the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if self.open[-1:] != ["style"] else ""


def test_a_row_for_each_model_counts_tokens_speed_endings_and_answers_that_equal_the_bases() -> None:
    base, tuned = comparison().summary()
    assert (base["tokens"], base["tokens_per_second"], base["ended"], base["same_as_base"]) == (20, 20.0, 2, 2)
    assert (tuned["tokens"], tuned["tokens_per_second"], tuned["ended"], tuned["same_as_base"]) == (40, 40.0, 1, 1)
    told = comparison().data()
    assert [row["prompt"] for row in told["answers"]] == [1, 1, 2, 2]
    assert told["about"]["max_new_tokens"] == 64


def test_the_page_is_whole_shows_every_word_as_text_and_loads_nothing() -> None:
    text = page(comparison(), f"lora-8 {HOSTILE}")
    seen = Page(text)
    assert seen.open == []
    assert {"script", "img", "link", "iframe"}.isdisjoint(seen.tags)
    assert seen.attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "scope"}
    assert not re.search(
        r"url\(|@import|https?://", re.sub(r"<pre.*?</pre>|<title>.*?</title>|<h1>.*?</h1>", "", text, flags=re.DOTALL)
    )
    assert "default-src 'none'" in text
    assert seen.words.count(HOSTILE.replace("\x1b", "\\x1b")) == 4  # title, heading, prompt, answer
    assert "\x1b" not in text
    assert "30 tokens in 0.50 s, 60.0 tokens/s cut" in seen.words
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
