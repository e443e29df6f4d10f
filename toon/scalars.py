"""The one place for the quoting rule, the key rule and the number rules (specification sections 2, 4 and 7).

Each rule is written out in full first. Where there is a faster form too, both must agree, and a test compares them.
"""

from __future__ import annotations

import re
from math import inf

from toon.errors import ToonError, excerpt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Real: TypeAlias = Callable[[str], object]
    """What makes a value of a number written with a fraction or an exponent: `float`, or `Decimal` for a schema that asks."""

LITERALS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
EMPTY_ARRAY = "[]"
DELIMITERS = {",": "", "\t": "\t", "|": "|"}
"""Each delimiter with the symbol that declares it inside a header's brackets (section 6)."""

# --- Strings out (section 7.2) ------------------------------------------------------------------------------------------

_NUMERIC_LIKE = r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
NUMERIC_LIKE = re.compile(_NUMERIC_LIKE)


def needs_quotes(text: str, delimiter: str) -> bool:
    """THE quoting rule: whether section 7.2 asks for quotes, condition by condition.

    (A root string that starts with U+FEFF is quoted as well; only the encoder knows what stands at the root.)
    """
    return (
        text == ""
        or text[0] in " \t"
        or text[-1] in " \t"
        or text in LITERALS
        or NUMERIC_LIKE.fullmatch(text) is not None
        or any(char in ':"\\[]{}' for char in text)
        or any(char < " " for char in text)
        or delimiter in text
        or text[0] in "-#"
    )


def _bare_pattern(delimiter: str) -> re.Pattern[str]:
    """The same rule as one pattern, for one value: it matches exactly the strings that need no quotes."""
    return re.compile(rf'(?![ \-#]|(?:true|false|null|{_NUMERIC_LIKE})\Z)[^:"\\\[\]{{}}\x00-\x1f{delimiter}]++(?<! )')


BARE = {delimiter: _bare_pattern(delimiter) for delimiter in DELIMITERS}

# The same rule for a whole column at once, its strings joined with "\n" before, between and after them: where neither
# pattern finds anything (and no string holds a "\n" itself), none of the strings needs quotes.
COLUMN_UNSAFE = {delimiter: re.compile(rf'[:"\\\[\]{{}}\x00-\x09\x0b-\x1f{delimiter}]') for delimiter in DELIMITERS}
NEEDS_ESCAPE_IN_COLUMN = re.compile(r'[\\"\x00-\x09\x0b-\x1f]')
COLUMN_UNSAFE_START = re.compile(rf"\n(?:[ \-#]|(?:true|false|null|{_NUMERIC_LIKE})?\n)")


def string_text(text: str, delimiter: str) -> str:
    """The text of a string value, quoted only where necessary."""
    if text.isidentifier():  # letters, digits and underscores: of all conditions only the literals remain
        return text if text not in LITERALS else f'"{text}"'
    return text if BARE[delimiter].fullmatch(text) else quoted(text)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPES |= {chr(code): f"\\u{code:04x}" for code in range(32) if chr(code) not in _ESCAPES}
_ESCAPED_CHARACTER = re.compile(r'[\\"\x00-\x1f]')


def quoted(text: str) -> str:
    """Text in quotes, escaped as section 7.1 says and no further."""
    return f'"{_ESCAPED_CHARACTER.sub(lambda found: _ESCAPES[found[0]], text)}"'


# --- Keys (section 7.3) -------------------------------------------------------------------------------------------------

BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def key_text(key: str) -> str:
    """The text of a key or a field name."""
    if key.isidentifier() and key.isascii():  # the rule below, less the dot
        return key
    return key if BARE_KEY.fullmatch(key) else quoted(key)


# --- Numbers out (section 2) --------------------------------------------------------------------------------------------


def float_text(number: float, spelled: str | None = None) -> str:
    """A float in canonical form: the fewest digits that read back as the same number, which is what `repr` (`spelled`) finds.

    Except from 1e16 up to 1e21, where section 2 asks for whole digits: those read back as an integer, so all of them must stand.
    """
    text = spelled or float.__repr__(number)
    if text[-2:] == ".0":
        return "0" if number == 0 else text[:-2]
    if "e" in text:
        if 1e16 <= abs(number) < 1e21:
            return int.__repr__(int(number))
        return _small_text(text) if text[-4:] == "e-05" else canonical(text)
    return text if "n" not in text else "null"  # nan, inf


def _small_text(text: str) -> str:
    """The commonest of the numbers that `repr` gives an exponent: learning rates, `9.5e-05`."""
    digits = text[:-4].replace(".", "", 1)
    return f"-0.0000{digits[1:]}" if digits[0] == "-" else f"0.0000{digits}"


def canonical(text: str) -> str:
    """Python's spelling of a finite number (`1.50`, `1E-7`, `1e+16`) in canonical form."""
    sign, text = ("-", text[1:]) if text[0] == "-" else ("", text)
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits.strip("0"):
        return "0"
    point = len(digits) - len(fraction) + int(exponent or 0)  # the decimal point stands before digits[point]
    digits = digits.rstrip("0")
    if not -5 <= point <= 21:  # |n| < 1e-6 or |n| >= 1e21
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits.ljust(point, "0")
    return f"{sign}{digits[:point]}.{digits[point:]}"


# --- Tokens in (section 4 and 7.4) --------------------------------------------------------------------------------------

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:(\.[0-9]+)?([eE][+-]?[0-9]+)?)")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.)|)", re.DOTALL)
_SOUND_ESCAPES = re.compile(r'(?:[^\\]++|\\(?:["\\nrt]|u(?![dD][89a-fA-F])[0-9A-Fa-f]{4}))*+')
_UNESCAPED = {"\\": "\\", '"': '"', "n": "\n", "r": "\r", "t": "\t"}


def token_value(token: str, real: Real = float, max_digits: int = 4300) -> object:
    """The value of one trimmed token.

    The numeric domain is every integer of up to `max_digits` digits and every finite double (or `Decimal`, when `real` is
    that); a number outside it is an error, never a string and never infinity. A column in the error counts from the token.
    """
    found = NUMBER.fullmatch(token)
    if found is None:
        if token[:1] == '"':
            return unquoted(token)
        return LITERALS.get(token, token)
    if len(token) > max_digits:
        raise ToonError("limit", f"expected a number of at most {max_digits} characters, found {len(token)}", column=1)
    if found.lastindex is None:
        return int(token) if len(token) <= _ALWAYS_AN_INT else _long_integer(token)
    value = real(token)
    if value in _INFINITIES:
        raise ToonError("number", f"expected a number that a double can hold, found {excerpt(token)}", column=1)
    return value


_ALWAYS_AN_INT = 640
"""The lowest bound that `sys.set_int_max_str_digits` accepts."""
_INFINITIES = (inf, -inf)


def _long_integer(token: str) -> int:
    """An integer of any length, whatever `sys.set_int_max_str_digits` says."""
    try:
        return int(token)
    except ValueError:
        from decimal import Decimal

        return int(Decimal(token))


def unquoted(token: str) -> str:
    """The text inside a token that starts with a quote.

    Raises `string` where it is not closed or goes on after its closing quote, `escape` for an escape that section 7.1 lacks.
    """
    if token.find('"', 1) == len(token) - 1 > 0 and "\\" not in token:
        return token[1:-1]
    end = span_end(token, 0)
    if end < 0:
        _check_escapes(token)
        raise ToonError("string", 'expected a closing ", found the end of the line', column=len(token) + 1)
    if end < len(token):
        raise ToonError("string", f'expected nothing after the closing ", found {excerpt(token[end:])}', column=end + 1)
    return _ESCAPE.sub(_unescape, token)[1:-1]


def _check_escapes(token: str) -> None:
    """Raise for the first invalid escape, which explains more than the missing quote after it."""
    first = token.find("\\")
    sound = _SOUND_ESCAPES.match(token, first) if first >= 0 else None
    fault = _ESCAPE.match(token, sound.end()) if sound else None
    if fault is not None:
        _unescape(fault)


def _unescape(found: re.Match[str]) -> str:
    code, char = found.groups()
    if char in _UNESCAPED:
        return _UNESCAPED[char]
    if code is None:
        raise ToonError(
            "escape",
            f'expected one of \\\\ \\" \\n \\r \\t \\uXXXX, found {excerpt(found[0])}',
            column=found.start() + 1,
        )
    if 0xD800 <= int(code, 16) <= 0xDFFF:
        raise ToonError("escape", f"expected a character, found the surrogate {found[0]}", column=found.start() + 1)
    return chr(int(code, 16))


# --- Finding and splitting outside quotes (section 5.2) -----------------------------------------------------------------

_CLOSING = re.compile(r'(?<!\\)\\*+"')
"""A quote with all backslashes before it. Where their number is even, the quote closes its span."""


def span_end(text: str, opening: int) -> int:
    """The end of the quoted span that opens at `opening`, or -1 if it is not closed."""
    at = text.find('"', opening + 1)
    if at < 0 or text[at - 1] != "\\":
        return at + 1 or -1
    for found in _CLOSING.finditer(text, opening + 1):
        if (found.end() - found.start()) % 2:
            return found.end()
    return -1


def find_unquoted(text: str, char: str, start: int = 0) -> int:
    """Where `char` first stands outside a quoted span, or -1."""
    at = text.find(char, start)
    while at >= 0:
        opening = text.find('"', start, at)
        if opening < 0:
            return at
        start = span_end(text, opening)
        if start < 0:
            return -1
        if start > at:
            at = text.find(char, start)
    return -1


def split_unquoted(text: str, delimiter: str) -> list[str]:
    """The pieces between the delimiters outside quoted spans, untrimmed."""
    if '"' not in text:
        return text.split(delimiter)
    pieces: list[str] = []
    start = 0
    while (end := find_unquoted(text, delimiter, start)) >= 0:
        pieces.append(text[start:end])
        start = end + 1
    return [*pieces, text[start:]]
