"""Replaces characters outside ASCII by similar ones of the same width, for terminals, locales and encodings that lack them; pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from unicodedata import combining, east_asian_width

PLAIN = str.maketrans(
    {
        **dict.fromkeys("─═▔╌", "-"),
        **dict.fromkeys("│┃║▎▏▌▐┊", "|"),
        **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼╶╴", "+"),
        **dict.fromkeys("█▉▊▋", "#"),
        **dict.fromkeys("━╸", "="),
        **dict.fromkeys("▁▂", "_"),
        **dict.fromkeys("▃▄", "-"),
        **dict.fromkeys("▅▆", "+"),
        **dict.fromkeys("▇", "#"),
        **dict.fromkeys("▸›→▶", ">"),
        **dict(zip("★●■▲◆▼○□△◇", "*@#^%voUAO", strict=True)),
        **dict.fromkeys("·•", "."),
        "…": "~",
        **dict.fromkeys("−–—", "-"),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("‘’", "'"),
        "↵": "<",
        "α": "a",
        "×": "x",
        "✓": "v",
        "✗": "x",
        "\u2800": " ",
        "\xa0": " ",
    }
)


BARE_TERMINALS = frozenset({"dumb", "linux", "vt100", "ansi"})


def needed(environment: Mapping[str, str]) -> bool:
    """True where only ASCII can be shown: the bare consoles (by `TERM`), and a locale that is not UTF-8 (POSIX: 8.2)."""
    if environment.get("TERM", "") in BARE_TERMINALS:
        return True
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := environment.get(name))), "C.UTF-8")
    return "utf" not in locale.lower()


@lru_cache(4096)
def plain(text: str) -> str:
    """The text in ASCII, as many cells wide as before."""
    if text.isascii():
        return text
    return "".join(c if c.isascii() else _instead(c) for c in text.translate(PLAIN))


def _instead(character: str) -> str:
    if "\u2801" <= character <= "\u28ff":  # braille: as dense as its dots
        dots = (ord(character) - 0x2800).bit_count()
        return "." if dots < 3 else ":" if dots < 5 else "#"
    if combining(character):
        return ""
    return "??" if east_asian_width(character) in {"W", "F"} else "?"
