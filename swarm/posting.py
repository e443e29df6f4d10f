"""Posts a body to a server that a config names: to that address and to no other, within a time, and reads only so much of its answer."""

from __future__ import annotations

import http.client
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

MOST_BYTES = 1 << 20
"""More of an answer is not read."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Body and headers, among them keys, are meant for the address that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> bytes:
    """The answer of an http or https server.

    Raises OSError: HTTPError for a status other than success, TimeoutError where the whole takes longer, also if it comes byte by byte.
    """
    answer: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
    send = threading.Thread(target=_put, args=(answer, lambda: _posted(url, body, headers, seconds)), daemon=True)
    send.start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no whole answer within {seconds:g} s") from None
    if isinstance(found, BaseException):
        raise found
    return found


def _put(answer: queue.SimpleQueue[bytes | BaseException], work: Callable[[], bytes]) -> None:
    try:
        answer.put(work())
    except BaseException as error:
        answer.put(error)


def _posted(url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> bytes:
    try:
        request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310  configs take http and https alone
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as response:
            found: bytes = response.read(MOST_BYTES)
            return found
    except urllib.error.HTTPError as error:
        error.close()
        raise
    except (http.client.HTTPException, ValueError) as error:  # their texts may hold the address, and it a key
        raise OSError(f"it speaks no HTTP, or the address is none ({type(error).__name__})") from error
