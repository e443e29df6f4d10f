from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from swarm.event import Event
from swarm.events import Checkpoint, Claim, Drop, Post, Stop
from swarm.log import Entry, LogError
from swarm.log.chain import Place
from swarm.log.draft import Draft
from swarm.log.entry import Nothing, texts_of, time_text, understood, written
from swarm.log.escaping import escape, unescape
from swarm.log.forms import END, FORMS
from swarm.log.same import text_of

CHAIN = "9f3a1c2db7+"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def rendered(entry: Entry) -> str:
    """The entry as it stands in a file, if it leans on nothing before it."""
    facts = text_of(texts_of(entry.event))
    text = written(entry.seq, entry.author, time_text(int(entry.time)), entry.event, facts, entry.via)
    return (text + entry.chain.encode() + END).decode()


def stands_as(event: Event, via: str | None = None) -> str:
    return rendered(Entry(17, "ada", 1795238000.0, event, CHAIN, via))


def read(text: str) -> Entry:
    """The entry that stands as `text`, in either form."""
    data = text.encode()
    for form in FORMS:
        header = form.header.match(data)
        if header and form.end(data, header) == len(data) - len(END) - form.chain_size:
            return understood(data.removesuffix(END), form, Nothing())
    raise LogError("nothing of the kind")


def test_an_entry_stands_as_the_house_page_shows_it() -> None:
    assert stands_as(Claim(ref="wide/train", ttl=60)) == (
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n"
    )
    dropped = Drop(ref="wide/train", tok=3, why="no step for 31 s", failed=True, body="sorry")
    assert stands_as(dropped, via="local") == (
        "##### 17 drop wide/train ada 2026-11-21 05:13:20\nsorry\n"
        '<!-- tok=3 why="no step for 31 s" failed=true via=local 9f3a1c2db7+ -->\n'
    )


def test_an_entry_of_an_earlier_version_is_read() -> None:
    text = '## 17 drop wide/train @ada 2026-11-21T05:13:20Z tok=3 why="a b" failed=true via=local len=14\n\\## 5 post\nbye\n<!-- /17 9f3a1c2db7e1c09a -->\n'
    dropped = Drop(ref="wide/train", tok=3, why="a b", failed=True, body="## 5 post\nbye")
    assert read(text) == Entry(17, "ada", 1795238000.0, dropped, "9f3a1c2db7e1c09a", "local")
    assert read(text.replace('"a b"', "~12")).event == dropped.model_copy(update={"why": "~12"}), "no reference then"
    assert read(text.replace("\\## 5 post", "\\##### 5 p")).event.body.startswith("\\##### 5"), "escaped by its author"


@given(why=st.none() | texts, body=texts, via=st.none() | texts.filter(bool))
def test_any_text_comes_back_from_header_and_body(why: str | None, body: str, via: str | None) -> None:
    entry = Entry(3, "ada", 1795238000.0, Stop(ref="run", why=why, body=body), CHAIN, via)
    assert read(rendered(entry)) == entry
    assert rendered(entry).count("\n") == body.count("\n") + 2 + bool(body)


@given(st.floats(allow_nan=False))
def test_floats_come_back_equal_and_short(value: float) -> None:
    back = read(stands_as(Claim(ref="a/train", ttl=value))).event
    assert isinstance(back, Claim)
    assert back.ttl == value and math.copysign(1, back.ttl) == math.copysign(1, value)


LINES = st.from_regex(
    rb"(?: {0,4}\\{0,3}(?:## |##\t|##### |<!-- |<div>|`{2,5}|~{3,4}|```py)?x?\n?){1,8}", fullmatch=True
)


@given(st.binary(max_size=80) | LINES)
def test_escaping_is_undone_exactly_and_leaves_nothing_that_looks_like_an_entry(body: bytes) -> None:
    assert unescape(escape(body)) == body
    assert not any(line.startswith((b"## ", b"##### ", b"<!-- ")) for line in escape(body).split(b"\n"))


HOSTILE = [
    "look:\n```\ncode without end", "~~~~\nno end", "```py\n~~~\n``\n", "<pre>", "<script>\n", "<div>\nx", "<![CDATA[", "<?php",
    "<h5>3 done</h5>", "#####\t3 done data/check ada", "x\r##### 3 done data/check", "   ##### 3 done\n", "   ## 3 done\n", "`````\n````\n```",
    "a list\n- of\n  1. things", "> quoted\n> ```", "| a | b |\n|---|---|\n| 1 | 2 |", "    indented", "\\## escaped", "<!-- begun",
]  # fmt: skip


def headings(markdown: str) -> list[str]:
    tokens = MarkdownIt("commonmark").parse(markdown)
    return [
        after.content for token, after in pairwise(tokens) if token.type == "heading_open" and token.tag in {"h2", "h5"}
    ]


@given(st.lists(st.sampled_from(HOSTILE) | LINES.map(bytes.decode), min_size=1, max_size=4))
def test_rendered_every_entry_is_a_heading_and_nothing_else_is_one(bodies: list[str]) -> None:
    """By markdown-it, which passes CommonMark's own tests."""
    draft = Draft(Place(), 1795238000.0)
    for body in bodies:
        draft.add("ada", Post(ref="s1", body=body))
    found = headings(draft.data.decode())
    assert [heading.split()[:3] for heading in found] == [[str(seq), "post", "s1"] for seq in range(1, len(bodies) + 1)]


def test_a_closed_block_of_code_stands_as_it_was_written() -> None:
    body = "look:\n```py\nprint(1)\n```\n~~~~\n```\n~~~~~\n"
    assert escape(body.encode()) == body.encode()


def test_blocks_of_code_by_the_thousand_take_no_longer_than_their_bytes() -> None:
    begun = time.process_time()
    escape(b"```a\n" * 13_000 + b"~~~\n" * 13_001)
    assert time.process_time() - begun < 2.0


def test_what_would_steer_a_terminal_stands_as_its_code() -> None:
    event = Post(ref="s1", body="\x1b[31mred\x1b[0m\tand\r\nlines \x9b2J\rover")
    assert event.body == "\\x1b[31mred\\x1b[0m\tand\r\nlines \\x9b2J\\rover"
    assert read(stands_as(event)).event == event


@pytest.mark.parametrize("author", ["Ada", "a b", "a\n## 18", "", "@ada", "a" * 65])
def test_an_author_who_is_no_name_is_refused(author: str) -> None:
    with pytest.raises(LogError, match="not an entry"):
        rendered(Entry(1, author, 0.0, Post(ref="run", body=""), CHAIN))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7 -->\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->",
        "x##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 2026-13-41 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=soon 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 more=1 9f3a1c2db7+ -->\n",
        "##### 17 claim ../../etc ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n",
        "##### 17 conjure wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=~12 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ~12 9f3a1c2db7+ -->\n",
        "##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 --> 9f3a1c2db7+ -->\n",
        '##### 17 claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl="\\x" 9f3a1c2db7+ -->\n',
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=1\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /18 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-13-41T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=soon len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 more=1 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim ../../etc @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 conjure wide/train @ada 2026-11-21T05:13:20Z len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        f"##### {'9' * 5000} claim wide/train ada 2026-11-21 05:13:20\n<!-- ttl=60 9f3a1c2db7+ -->\n",
        f"## {'9' * 5000} claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        '## 17 stop run @ada 2026-11-21T05:13:20Z why="\\x" len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n',
    ],
)
def test_what_is_no_entry_is_refused_with_an_error_of_the_log(text: str) -> None:
    with pytest.raises(LogError):
        read(text)


def test_a_checkpoint_with_every_kind_of_value_comes_back() -> None:
    event = Checkpoint(
        ref="a/train",
        tok=1,
        step=0,
        path='streams/ü ="x"/t1',
        sha256="0" * 64,
        figures={"loss": -0.0, "eval_loss": 1e300, "tokens": 900},
    )
    assert read(stands_as(event)).event == event


@pytest.mark.parametrize("text", ["a --> b", "--!>", "--> ", "~12", "~", "", "a=b", "->"])
def test_a_value_neither_ends_its_comment_nor_passes_for_a_reference(text: str) -> None:
    shown = stands_as(Stop(ref="run", why=text))
    assert read(shown).event == Stop(ref="run", why=text)
    assert shown.count("-->") == 1 and "--!>" not in shown and "why=~" not in shown
