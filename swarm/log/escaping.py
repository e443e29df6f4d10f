r"""Bodies made harmless to the Markdown around them, and back exactly; pure.

A backslash goes before every line that, rendered, would look like an entry or change how the entries after it are shown: a
heading of the entries' level, raw HTML, a block of code that is never closed.  No body can be taken for an entry, by the
parser or by a reader, nor swallow the rest of the log.
"""

from __future__ import annotations

import re

from swarm.log.forms import DIARY, Form

MISLEADS = re.compile(rb"^( {0,3}\\*)(?=##(?:###)?[ \t]|<[A-Za-z!?/])|^( {0,3}\\+)(?=```|~~~)", re.MULTILINE)
"""Up to three spaces do not change what a line begins (CommonMark 0.31, 4.2, 4.5 and 4.6)."""
ESCAPED = re.compile(rb"^( {0,3}\\*)\\(?=##(?:###)?[ \t]|<[A-Za-z!?/]|```|~~~)", re.MULTILINE)
ESCAPED_FIRST = re.compile(rb"^( {0,3}\\*)\\(?=##[ \t]|<[A-Za-z!?/]|```|~~~)", re.MULTILINE)
"""As it was in the first form, whose headings were of one level only."""
FENCE = re.compile(rb"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})([^\n]*)$", re.MULTILINE)
"""A line that begins a block of code or, without a word behind it, ends one that at most so many marks began."""


def escape(body: bytes) -> bytes:
    """The body as it may stand in the log."""
    if not (b"#" in body or b"<" in body or b"`" in body or b"~" in body):
        return body
    body = MISLEADS.sub(rb"\1\2\\", body)
    pieces, done = [], 0
    for at in unclosed_fences(body):
        pieces += [body[done:at], b"\\"]
        done = at
    return b"".join([*pieces, body[done:]])


def unescape(body: bytes, form: Form = DIARY) -> bytes:
    """The body as its author wrote it."""
    escaped = ESCAPED if form is DIARY else ESCAPED_FIRST
    return escaped.sub(rb"\1", body) if b"\\" in body else body


def unclosed_fences(body: bytes) -> list[int]:
    """Where blocks of code begin that the body never ends."""
    fences = [(found.start(1), found[1][:1], len(found[1]), not found[2].strip()) for found in FENCE.finditer(body)]
    longest_behind: list[dict[bytes, int]] = [{}]
    for _, mark, length, ends in reversed(fences):
        behind = longest_behind[-1]
        longest_behind.append({**behind, mark: max(length, behind.get(mark, 0))} if ends else behind)
    longest_behind.reverse()
    unclosed, index = [], 0
    while index < len(fences):
        at, mark, length, _ = fences[index]
        index += 1
        if longest_behind[index].get(mark, 0) < length:
            unclosed.append(at)
            continue
        while not (fences[index][1] == mark and fences[index][2] >= length and fences[index][3]):
            index += 1
        index += 1
    return unclosed
