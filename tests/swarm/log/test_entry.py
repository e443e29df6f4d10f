from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.events import Checkpoint, Claim, Drop, Event, Post, Stop
from swarm.log import Entry, LogError, parse, render
from swarm.log.entry import escape, unescape

CHAIN = "9f3a1c2db7e1c09a"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def stands_as(event: Event, via: str | None = None) -> str:
    return render(Entry(17, "ada", 1795238000.0, event, CHAIN, via))


def test_an_entry_stands_as_the_house_page_shows_it() -> None:
    assert stands_as(Claim(ref="wide/train", ttl=60)) == (
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n"
    )
    assert 'why="no step for 31 s" failed=true via=local len=5\nsorry\n' in stands_as(
        Drop(ref="wide/train", tok=3, why="no step for 31 s", failed=True, body="sorry"), via="local"
    )


@given(why=st.none() | texts, body=texts, via=st.none() | texts.filter(bool))
def test_any_text_comes_back_from_header_and_body(why: str | None, body: str, via: str | None) -> None:
    entry = Entry(3, "ada", 1795238000.0, Stop(ref="run", why=why, body=body), CHAIN, via)
    assert parse(render(entry)) == entry
    assert render(entry).count("\n") == body.count("\n") + 3


@given(st.floats(allow_nan=False))
def test_floats_come_back_equal_and_short(value: float) -> None:
    back = parse(stands_as(Claim(ref="a/train", ttl=value))).event
    assert isinstance(back, Claim)
    assert back.ttl == value and math.copysign(1, back.ttl) == math.copysign(1, value)


@given(st.binary(max_size=80) | st.from_regex(rb"(?: {0,4}\\{0,3}(?:## |<!-- /)?x?\n?){1,6}", fullmatch=True))
def test_escaping_is_undone_exactly_and_leaves_nothing_that_looks_like_an_entry(body: bytes) -> None:
    assert unescape(escape(body)) == body
    assert not any(line.startswith((b"## ", b"<!-- /")) for line in escape(body).split(b"\n"))


@pytest.mark.parametrize("author", ["Ada", "a b", "a\n## 18", "", "@ada", "a" * 65])
def test_an_author_who_is_no_name_is_refused(author: str) -> None:
    with pytest.raises(LogError, match="not an entry"):
        render(Entry(1, author, 0.0, Post(ref="run", body=""), CHAIN))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=1\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /18 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-13-41T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=soon len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 more=1 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 claim ../../etc @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        "## 17 conjure wide/train @ada 2026-11-21T05:13:20Z len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        f"## {'9' * 5000} claim wide/train @ada 2026-11-21T05:13:20Z ttl=60 len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n",
        '## 17 stop run @ada 2026-11-21T05:13:20Z why="\\x" len=0\n\n<!-- /17 9f3a1c2db7e1c09a -->\n',
    ],
)
def test_what_is_no_entry_is_refused_with_an_error_of_the_log(text: str) -> None:
    with pytest.raises(LogError):
        parse(text)


def test_a_checkpoint_with_every_kind_of_value_comes_back() -> None:
    event = Checkpoint(
        ref="a/train", tok=1, step=0, path='streams/ü ="x"/t1', sha256="0" * 64, loss=-0.0, heldout=1e300
    )
    assert parse(stands_as(event)).event == event
