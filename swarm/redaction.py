"""Keeps access tokens and keys out of all that is printed, recorded or written: those of the environment, and what looks like one.

Every `UserError`, every report of a worker and every uncaught exception goes through `redacted`; a config with a token in it is refused.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from types import TracebackType

TOKEN = re.compile(r"\b(?:hf_|hf_oauth_|sk-|ghp_|github_pat_)[A-Za-z0-9_-]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""Tokens of the hub, of GitHub and of model services, and a name with its password in an address."""
NAMES = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD")
"""How names of environment variables with secrets end."""
LEAST_CHARACTERS = 12
"""Shorter values may be words that stand elsewhere too."""
INSTEAD = "***"


def redacted(text: str) -> str:
    """The text with three stars for each secret."""
    return _pattern().sub(INSTEAD, text)


def holds_token(text: str) -> bool:
    return _pattern().search(text) is not None


@cache
def _pattern() -> re.Pattern[str]:
    return pattern_for(os.environ)


def pattern_for(environment: Mapping[str, str]) -> re.Pattern[str]:
    """What is a secret where this is the environment."""
    secrets = {value for name, value in environment.items() if name.upper().endswith(NAMES)}
    known = sorted((re.escape(value) for value in secrets if len(value) >= LEAST_CHARACTERS), key=len, reverse=True)
    return re.compile("|".join([*known, TOKEN.pattern]))


def print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """For `sys.excepthook`."""
    print(redacted("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")
