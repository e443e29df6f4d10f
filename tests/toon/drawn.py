"""Random documents and damaged texts for the differential test; the same seed draws the same ones."""

from __future__ import annotations

import random
from typing import Any

STRINGS = [
    "", " ", "a", "b", "true", "null", "False", "-", "-x", "- a", "#", "# c", "a#b", "05", "1e5", "+5", ".5", "1.", "0x10", "1_000", "-0",
    "NaN", "a,b", "a|b", "a\tb", "x:y", "a: b", "[1]", "[2]: x", "{a}", "a[1]: 2", 'a"b', '"', "\\", "\\n", "a\nb", "\r", "\x00", "\x1f",
    "\x7f", "\u0085", "\u2028", "é", "日本", "😀", "\ufeff", "\ufeffa", "\u00a0", " lead", "trail ", "\ttab", "a b", "a  b", "key", "id",
    "1.0", "-1E+03", "e", "1e", "٣", "İ", "́x", "[]", "{}", "2026-11-21T09:00:00Z", "q_proj", "a.b", "a-b", "x\x01y", "\x02\x00", '\\"', 'a","b',
]  # fmt: skip
KEYS = [
    "a",
    "b",
    "c",
    "id",
    "name",
    "x.y",
    "_k",
    "a-b",
    "1",
    "",
    " ",
    "é",
    "a b",
    "k:",
    "[0]",
    "__proto__",
    'q"',
    "-",
    "#",
    "true",
    "\n",
    "a,b",
    "a|b",
]
NUMBERS: list[int | float] = [
    0, -0.0, 1, -1, 10, 1.0, 1.5, -2.25, 1e-6, 9.9e-7, 1e-7, 5e-324, 2.2250738585072014e-308, 1e15, 1e16, 1e20, 1e21, 1e22, 1.7976931348623157e308,
    0.1, 0.30000000000000004, 2**53, 2**53 + 1, 10**20, 10**21, 10**30, -(10**25), 123456789012345680000, 123456789.123,
]  # fmt: skip
DELIMITERS = [",", "\t", "|"]


def scalar(draw: random.Random) -> Any:
    """A primitive."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(STRINGS)
    if kind < 4:
        return "".join(draw.choice('ab01-. ,|\t:"\\[]{}#_eEtrufalsn\n\x00é') for _ in range(draw.randrange(6)))
    if kind < 6:
        return draw.choice(NUMBERS)
    if kind < 7:
        return draw.choice(
            [draw.randrange(-(10**6), 10**6), draw.uniform(-1e3, 1e3), draw.random() * 10.0 ** draw.randrange(-30, 30)]
        )
    return draw.choice([True, False, None])


def document(draw: random.Random, depth: int = 0) -> Any:
    """Any JSON value, tables and near-tables among them."""
    kind = draw.randrange(10) if depth < 4 else 0
    if kind < 2 and depth:
        return scalar(draw)
    if kind < 4:
        return {_key(draw): document(draw, depth + 1) for _ in range(draw.randrange(5))}
    if kind < 6:
        return [document(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind < 7:
        return [scalar(draw) for _ in range(draw.randrange(6))]
    return _table(draw, depth, keyed=kind == 9)


def _key(draw: random.Random) -> str:
    return draw.choice(KEYS) if draw.random() < 0.5 else draw.choice("abcdef") + str(draw.randrange(9))


def _table(draw: random.Random, depth: int, *, keyed: bool) -> Any:
    names = list(dict.fromkeys(_key(draw) for _ in range(1 + draw.randrange(4))))
    grouped = draw.random() < 0.2
    rows = []
    for _ in range(draw.randrange(1, 7)):
        order = names if draw.random() < 0.8 else draw.sample(names, len(names))
        row = {name: scalar(draw) for name in order}
        if grouped:
            row["group"] = {"p": scalar(draw), "q": {"r": scalar(draw)}}
        if draw.random() < 0.03:
            row["odd"] = document(draw, depth + 2)
        rows.append(row)
    return {_key(draw) + str(number): row for number, row in enumerate(rows)} if keyed else rows


def mutated(text: str, draw: random.Random) -> str:
    """The text with one to three small injuries."""
    for _ in range(1 + draw.randrange(3)):
        at = draw.randrange(len(text) + 1)
        kind = draw.randrange(9)
        if kind < 3:
            text = (
                text[:at]
                + draw.choice(
                    [
                        ":",
                        ",",
                        "|",
                        "\t",
                        " ",
                        "  ",
                        "\n",
                        '"',
                        "[",
                        "]",
                        "{",
                        "}",
                        "-",
                        "#",
                        "\\",
                        "1",
                        "0",
                        "a",
                        "\r",
                        "\ufeff",
                        "- ",
                        "[]",
                        "[1]:",
                        '"x"',
                        "\n\n",
                        "\n  ",
                        "\n# c\n",
                        "\x00",
                    ]
                )
                + text[at:]
            )
        elif kind < 5:
            text = text[:at] + text[at + 1 + draw.randrange(3) :]
        else:
            text = _line_injury(text, draw, kind)
    return text


def _line_injury(text: str, draw: random.Random, kind: int) -> str:
    lines = text.split("\n")
    at, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    if kind == 5:
        lines.insert(other, lines[at])
    elif kind == 6:
        del lines[at]
    elif kind == 7:
        lines[at] = draw.choice(["  ", " ", "\t", "    "]) + lines[at]
    else:
        lines[at] = (
            lines[at].removeprefix("  ")
            if draw.random() < 0.7
            else draw.choice(["", "# comment", "  ", "x", "- 1", "k: v"])
        )
    return "\n".join(lines)
