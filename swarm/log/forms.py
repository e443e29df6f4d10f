r"""The two forms in which entries stand in a file, as bytes; what an entry says is `entry.py`'s business.  Pure.

    ##### <seq> <kind> <ref> <author>[ [<day> ]<time>]      DIARY: every entry that is written today
    <body>
    <!-- k=v ... <chain> -->

    ## <seq> <kind> <ref> @<author> <day>T<time>Z k=v ... len=<bytes>        FIRST: entries of earlier versions, only read
    <body, exactly len bytes>
    <!-- /<seq> <chain> -->

A log that was begun in the first form goes on in the diary form, in the same file and on the same chain.  No line of a body
begins like a heading or a comment (`escaping.py`), so the first comment behind a heading closes its entry.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from swarm.event import NAME

VALUE = r'(?:"(?:[^"\\\x00-\x1f]|\\.)*"|[^\s"=\x00-\x1f]+)'
END = b" -->\n"
COMMENT = b"\n<!-- "
CUT_FIRST = b"\n<!-- /"
DIARY_CHAIN = 11

HEADING = re.compile(
    rb"##### (?P<seq>[1-9]\d{0,17}) (?P<kind>[a-z]{1,32}) (?P<ref>[^\s@]+) (?P<author>%s)"
    rb"(?: (?:(?P<day>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d:\d\d))?\n" % NAME.encode()
)
"""A whole heading; `[1-9]` and the bounds keep `int()` cheap whatever the text says."""
FIRST_HEADER = re.compile(
    rb"## (?P<seq>[1-9]\d{0,17}) (?P<kind>[a-z]{1,32}) (?P<ref>[^\s@]+) @(?P<author>%s) "
    rb"(?P<day>\d{4}-\d\d-\d\d)T(?P<time>\d\d:\d\d:\d\d)Z(?P<facts>(?: [a-z_][a-z0-9_]*=%s)*?) len=(?P<len>\d{1,12})\n"
    % (NAME.encode(), VALUE.encode())
)
HEADER_LINE = re.compile(rb"^##(?:###)? ([1-9]\d{0,17}) ", re.MULTILINE)
"""What the heading of an entry of either form begins with."""
CLOSING = re.compile(rb"^<!-- (?:/\d{1,18} [0-9a-f]{16}|(?:[^\n]* )?[A-Za-z0-9+/]{11}) -->$", re.MULTILINE)
"""The line that closes an entry of either form."""

HEAD = b"""\
# What happened in this run, oldest first
Everybody who takes part writes here. Type at the end of this file (your text is kept as a note), or `swarm post REF "text" --as NAME`.
To read less: `swarm log`, `swarm digest`; is every byte as written: `swarm log verify`; all commands: `swarm --help`.

"""
"""Opens every file; part of the format, so that the chain begins right behind it."""


def diary_chain(before: bytes, unchained: bytes) -> bytes:
    """BLAKE2b, 8 bytes, in base64 without its padding: eleven characters, which cost a language model less than hexadecimal."""
    return b2a_base64(blake2b(before + unchained, digest_size=8).digest(), newline=False)[:DIARY_CHAIN]


def first_chain(before: bytes, unchained: bytes) -> bytes:
    return blake2b(before + unchained, digest_size=8).hexdigest().encode()


def diary_end(data: bytes, heading: re.Match[bytes]) -> int:
    comment = data.find(COMMENT, heading.end() - 1)
    line_end = data.find(b"\n", comment + 1) + 1 if comment >= 0 else 0
    end = line_end - len(END) - DIARY_CHAIN
    return end if line_end and data.endswith(END, 0, line_end) and data.endswith(b" ", comment, end) else -1


def first_end(data: bytes, header: re.Match[bytes]) -> int:
    body_end = header.end() + int(header["len"])
    cut = CUT_FIRST + header["seq"] + b" "
    return body_end + len(cut) if data.startswith(cut, body_end) else -1


@dataclass(frozen=True, slots=True)
class Form:
    """How entries of one form begin and end."""

    begin: bytes
    header: re.Pattern[bytes]
    chain_size: int
    """Characters of a chain value."""
    chain_of: Callable[[bytes, bytes], bytes]
    """The chain value of an entry: (that of the entry before, its own bytes from the seq up to its chain value)."""
    end: Callable[[bytes, re.Match[bytes]], int]
    """Where the chain value stands of the entry whose header was found; -1 if nothing closes it."""

    @property
    def between(self) -> bytes:
        """What stands between two entries.  No body can hold it, so one split of a file gives its raw entries."""
        return END + self.begin


DIARY = Form(b"##### ", HEADING, DIARY_CHAIN, diary_chain, diary_end)
FIRST = Form(b"## ", FIRST_HEADER, 16, first_chain, first_end)
FORMS = (DIARY, FIRST)
