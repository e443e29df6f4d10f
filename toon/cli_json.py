"""Strict JSON reader of the command `toon`; errors have a position.

Python's `json` accepts NaN and the infinities, reads 1e400 as infinity and keeps the last of two equal keys. All are refused here.
"""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any

from toon.errors import ToonError, excerpt
from toon.headers import is_header
from toon.scalars import NUMBER


class _Refused(Exception):
    """Python's reader would accept this text, but it is refused here; its position is searched afterwards."""


def json_value(data: bytes | str) -> Any:
    """The value of JSON text. Raises `ToonError` with the position."""
    text = data if isinstance(data, str) else _text(data)
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object)
    except _Refused:
        raise _fault(text) from None
    except json.JSONDecodeError as fault:
        raise ToonError("syntax", f"no JSON: {fault.msg}", line=fault.lineno, column=fault.colno) from None
    except RecursionError:
        raise ToonError("limit", "expected fewer levels of JSON") from None
    except ValueError as fault:  # an integer longer than Python reads
        raise ToonError("limit", str(fault)) from None


def is_meant_as_json(data: bytes) -> bool:
    """Whether a text that is not valid JSON is broken JSON rather than TOON.

    It is if it starts with `{` (TOON quotes such a key), or with `[` in a line that is not a TOON header.
    """
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] == b"{" or (
        start[:1] == b"[" and not is_header(start.partition(b"\n")[0].decode(errors="replace"))
    )


def _text(data: bytes) -> str:
    try:
        return data.decode(json.detect_encoding(data))
    except UnicodeDecodeError as fault:
        raise ToonError("utf8", f"expected UTF-8: {fault.reason} at byte {fault.start}") from None


def _refuse(token: str) -> Any:
    raise _Refused


def _finite(token: str) -> float:
    number = float(token)
    if isinf(number):
        raise _Refused
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _Refused
    return value


_TOKEN = re.compile(rf'"(?:[^"\\]|\\.)*+"|[{{}}\[\]:]|NaN|-?Infinity|{NUMBER.pattern}', re.DOTALL)


def _fault(text: str) -> ToonError:
    """The first error in a text that Python's reader accepts (as far as it has been read)."""
    objects: list[set[str]] = []
    key = ""
    start = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        match token[0]:
            case "{" | "[":
                objects.append(set())
            case "}" | "]":
                objects.pop()
            case '"':
                key, start = token, found.start()
            case ":":
                name = json.loads(key)
                if name in objects[-1]:
                    return _placed("duplicate", f"expected each key once, found {excerpt(name)} again", text, start)
                objects[-1].add(name)
            case _ if token[-1] in "Ny":
                return _placed("number", f"no JSON: found {token}", text, found.start())
            case _ if found.lastindex and isinf(float(token)):  # it has a fraction or an exponent
                reason = f"expected a number that a double can hold, found {excerpt(token)}"
                return _placed("number", reason, text, found.start())
    raise AssertionError("refused, but no fault was found")


def _placed(code: Any, reason: str, text: str, at: int) -> ToonError:
    start = text.rfind("\n", 0, at) + 1
    source = text[start:].partition("\n")[0]
    return ToonError(code, reason, line=text.count("\n", 0, at) + 1, column=at - start + 1, source=source)
