r"""Many documents in one stream of bytes, each in a frame with a number, a length and a checksum, for files and pipes.

A frame is a head line, the document, and a newline:

    #toon <number> <kind> <length of the document in bytes> <CRC-32 of number, kind and document>\n

`doc` holds a whole document. `head` holds the header of a table, `[0]{a,b}:`, and `rows/<number of that head>` further rows of
it: the header is written once. Heads are comment lines in TOON, so a stream of one head and its rows is itself a document
(for `strict=False`). No line of an encoded document starts with `#` (section 7.2), so after damage a reader continues at the
next head: a frame whose document has a line that starts with `#toon ` is refused, whatever its checksum. That also bounds the
work: each byte is searched and summed a fixed number of times. Resending, reordering and acknowledging are not done here.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from zlib import crc32

from toon.decode import decode
from toon.documents import utf8_text
from toon.encode import encode
from toon.errors import ToonError
from toon.fast_reader import FastReader
from toon.headers import Header, is_header, parse_header
from toon.limits import DEFAULT_LIMITS, Limits
from toon.lines import prepared
from toon.scopes import END
from toon.stream import RowWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MARK = b"#toon "
_HEAD = re.compile(rb"#toon ([1-9][0-9]{0,17}) (doc|head|rows/[1-9][0-9]{0,17}) ([0-9]{1,12}) ([0-9a-f]{8})\n")
_LONGEST_HEAD = 80
KEPT_HEADERS = 4096
"""Tables whose rows may still come: no frame says that a table is over, so the one without rows for longest is forgotten."""


class Frame(NamedTuple):
    """One document, or one batch of a table's rows."""

    number: int
    kind: str
    """`doc`, `head` or `rows`."""
    value: Any
    """The document's value; the field names of a `head` as its decoder sees them, `[]`; the rows."""


class Gap(NamedTuple):
    """A place where part of the stream is missing or damaged."""

    expected: int
    """The number that was due."""
    found: int | None
    """The number that came instead; None where the bytes are damaged or end."""
    reason: str


class FrameWriter:
    """Writes frames one after the other."""

    def __init__(self, write: Callable[[bytes], object], *, first_number: int = 1, delimiter: str = ",") -> None:
        """`write` takes bytes, each call one whole frame; a stream that is continued goes on at `first_number`."""
        self.number = first_number
        """The number of the next frame."""
        self._write = write
        self._delimiter = delimiter

    def write(self, value: Any) -> int:
        """Write one value as a document; return its number."""
        return self._frame("doc", encode(value, delimiter=self._delimiter))

    def rows(self, fields: Iterable[str], *, batch_rows: int = 1000) -> RowWriter:
        """A writer whose header is a frame now, and each batch of rows a further one. Several may be open at once."""
        heads: list[int] = []

        def put(text: str) -> None:
            if heads:
                self._frame(f"rows/{heads[0]}", text.removeprefix("\n"))
            else:
                heads.append(self._frame("head", text))

        return RowWriter(fields, put, batch_rows=batch_rows, delimiter=self._delimiter)

    def _frame(self, kind: str, text: str) -> int:
        number, payload = self.number, text.encode()
        self.number += 1
        self._write(
            b"#toon %d %s %d %08x\n%s\n"
            % (number, kind.encode(), len(payload), _checksum(number, kind, payload), payload)
        )
        return number


def _checksum(number: int, kind: str, payload: bytes) -> int:
    return crc32(payload, crc32(f"{number} {kind} ".encode()))


class FrameReader:
    """Takes a stream in any pieces and gives its frames, and its gaps.

    Memory: one frame, of at most `limits.max_bytes`, and the last `KEPT_HEADERS` table headers in use, together no larger than that.
    """

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS) -> None:
        """Begin anywhere in a stream: the first number seen is taken as the first."""
        self._limits = limits
        self._buffer = bytearray()
        self._expected: int | None = None
        self._heads: dict[int, tuple[Header, int]] = {}
        """Headers and their sizes by the number of their frame, the one used last at the end."""
        self._heads_size = 0
        self._adrift = False
        """Whether the damage being passed has been told."""
        self._searched = 0
        """How far the buffer is known to hold no second mark."""

    def feed(self, chunk: bytes) -> Iterator[Frame | Gap]:
        """The frames that this chunk completes. Raises `ToonError` for a whole frame that is no document."""
        self._buffer += chunk
        return self._complete(final=False)

    def finish(self) -> Iterator[Frame | Gap]:
        """End the stream: a gap, if the last frame is incomplete."""
        return self._complete(final=True)

    def _complete(self, *, final: bool) -> Iterator[Frame | Gap]:
        while self._buffer:
            head = _HEAD.match(self._buffer)
            if head is None:
                if not final and b"\n" not in self._buffer[:_LONGEST_HEAD] and len(self._buffer) < _LONGEST_HEAD:
                    return
                yield from self._damaged("bytes that are no frame", 1, final)
                continue
            number, kind, length = int(head[1]), head[2].decode(), int(head[3])
            end = head.end() + length
            if length > self._limits.max_bytes:
                yield from self._damaged(f"a frame of {length} bytes", head.end(), final)
            elif self._interrupted(head.end(), end):
                yield from self._damaged("a frame that is cut short", head.end(), final)
            elif end + 1 <= len(self._buffer):
                payload = bytes(self._buffer[head.end() : end])
                if self._buffer[end] != 0x0A or _checksum(number, kind, payload) != int(head[4], 16):
                    yield from self._damaged("a frame whose checksum does not fit", head.end(), final)
                    continue
                del self._buffer[: end + 1]
                self._searched = 0
                yield from self._frame(number, kind, payload)
            elif final:
                yield from self._damaged("a frame that is cut short", head.end(), final)
            else:
                return

    def _interrupted(self, start: int, end: int) -> bool:
        """Whether another frame begins before this one is complete; each byte is searched once."""
        at = self._buffer.find(b"\n" + MARK, max(start - 1, self._searched - len(MARK)), end + len(MARK))
        self._searched = min(len(self._buffer), end + len(MARK))
        return at >= 0

    def _damaged(self, reason: str, start: int, final: bool) -> Iterator[Gap]:
        """Drop everything before the next head; one gap is reported until a frame is complete again."""
        at = self._buffer.find(b"\n" + MARK, start - 1)
        if at >= 0:
            keep = at + 1
        else:
            keep = self._buffer.rfind(b"\n") + 1
            if final or not MARK.startswith(self._buffer[keep:]):
                keep = len(self._buffer)
        del self._buffer[:keep]
        self._searched = 0
        if not self._adrift:
            yield Gap(self._expected or 1, None, reason)
        self._adrift = True

    def _frame(self, number: int, kind: str, payload: bytes) -> Iterator[Frame | Gap]:
        if self._expected is not None and number != self._expected:
            yield Gap(self._expected, number, "frames lost" if number > self._expected else "a number that came before")
        self._expected = number + 1
        self._adrift = False
        text = utf8_text(payload)
        kind, _, head = kind.partition("/")
        if kind == "head":
            self._keep_head(number, text)
            yield Frame(number, kind, [])
        elif kind == "rows":
            kept = self._heads.pop(int(head), None)
            if kept is None:
                yield Gap(number, number, f"rows whose header, frame {head}, was lost or is too long ago")
                return
            self._heads[int(head)] = kept
            yield Frame(number, kind, _rows(kept[0], text, self._limits))
        else:
            yield Frame(number, kind, decode(text, limits=self._limits))

    def _keep_head(self, number: int, text: str) -> None:
        """Store a header; above the limit the least recently used ones are dropped."""
        header = parse_header(text, self._limits, strict=True) if is_header(text) else None
        if header is None or header.fields is None or header.keyed or header.key is not None or header.length:
            raise ToonError("header", "expected the header of a table, `[0]{a,b}:`", line=1)
        if number in self._heads:
            self._heads_size -= self._heads.pop(number)[1]
        self._heads[number] = header, len(text)
        self._heads_size += len(text)
        while len(self._heads) > KEPT_HEADERS or self._heads_size > self._limits.max_bytes:
            self._heads_size -= self._heads.pop(next(iter(self._heads)))[1]


def _rows(header: Header, text: str, limits: Limits) -> Any:
    """The rows under a header that is parsed once for all its frames of rows; it counts as the first line."""
    lines = prepared(text)
    reader = FastReader(2, strict=True, limits=limits)
    reader.lines_before = reader.line = 1
    reader.blank_line = 0
    root = reader.root
    root.kind, root.depth, root.width, root.value = END, 0, 0, []
    reader.stack.append(root)
    reader._open_header(root, header._replace(length=len(lines)), root.value, 0)
    reader.read(lines)
    return reader.finish()


def read_frames(chunks: Iterable[bytes], *, limits: Limits = DEFAULT_LIMITS) -> Iterator[Frame | Gap]:
    """The frames and gaps of an open binary file, or of any pieces of a stream."""
    reader = FrameReader(limits=limits)
    for chunk in chunks:
        yield from reader.feed(chunk)
    yield from reader.finish()
