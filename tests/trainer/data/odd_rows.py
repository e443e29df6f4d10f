"""Dataset files with odd rows among good ones, drawn at random: what the property test of the row boundary is given.

A file is drawn as a `DrawnFile`: its bytes, how its rows are meant, and which of them are good.  Formats that are read row by row must
keep all good rows; a document that is read whole may be refused whole where it is torn.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from toon import encode

GOOD_ROWS = 6
COLUMNS = {
    "chatml": ["messages", "tools"], "alpaca": ["instruction", "input", "output"], "prompt_completion": ["prompt", "completion"],
    "toon": ["prompt", "completion"], "text": ["text"],
}  # fmt: skip
WORDS = [
    "", " ", "\n", "\x00", "\x85", "\u2028", "\ufeff", "\u200b", "ﬁ", "ß", "😀", "\U00100000", "\ud800", "\udc80", "{{ x }}", "{% raw %}", "<|im_end|>",
    "<|im_start|>assistant\n", "<|pad|>", "<think>", "</think>", "null", "nan", "-", "- a", "#", "a,b", '"', "'", "\\", "\r", "0x1", "1e999", "user",
]  # fmt: skip


@dataclass(frozen=True)
class DrawnFile:
    suffix: str
    type: str
    write: Callable[[Path], object]
    good: Sequence[dict[str, Any]]
    rows: int | None = None
    """How many rows the file has, blank lines aside; None where a torn document may have any number."""

    @property
    def row_by_row(self) -> bool:
        return self.rows is not None


@dataclass(frozen=True)
class Sizes:
    """How large the values are that are drawn."""

    words: int
    characters: int
    leaves: int
    odd_rows: int


# ---- values of any type ----


def texts(sizes: Sizes) -> SearchStrategy[str]:
    joined = st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=sizes.words).map("".join)
    long = st.builds(
        lambda text, times: text * times,
        st.sampled_from(["a", "ß ", "<|im_end|>", "\n"]),
        st.integers(1, sizes.characters),
    )
    return joined | long


def numbers() -> SearchStrategy[Any]:
    return st.integers() | st.floats() | st.sampled_from([10**400, -(10**30), 1 << 64, 5e-324, -0.0])


def values(sizes: Sizes) -> SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | numbers() | texts(sizes)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(sizes), inner, max_size=4), max_leaves=sizes.leaves
    )  # fmt: skip


@st.composite
def conversations(draw: DrawFn, sizes: Sizes) -> list[Any]:
    """Messages as OpenAI or ShareGPT write them; in one of them a key holds anything, or is missing."""
    words, anything = texts(sizes), values(sizes)
    call = st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": words}, optional={"arguments": anything})})
    more = st.fixed_dictionaries({}, optional={
        "weight": st.sampled_from([0, 1, 0.5, True]), "train": st.booleans(), "tool_calls": st.lists(call, max_size=2), "name": words,
        "reasoning_content": words,
    })  # fmt: skip
    parts = st.lists(
        st.fixed_dictionaries({"type": st.sampled_from(["text", "image"]), "text": words | anything}), max_size=2
    )
    openai = st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "assistant", "tool"]), "content": words | parts}
    )
    sharegpt = st.fixed_dictionaries(
        {"from": st.sampled_from(["human", "gpt", "gpt", "function_call"]), "value": words}
    )
    drawn: list[Any] = [{**draw(more), **draw(openai | sharegpt)} for _ in range(draw(st.integers(1, 3)))]
    at = draw(st.integers(0, len(drawn)))
    if at < len(drawn):
        key = draw(st.sampled_from(sorted(drawn[at])))
        drawn[at][key] = draw(anything | st.sampled_from([{}, [], 0, None]))
    return drawn


@st.composite
def odd_rows(draw: DrawFn, kind: str, sizes: Sizes) -> dict[str, Any]:
    """All columns as they should be, but for one that holds anything or is missing, and columns of other names."""
    row: dict[str, Any] = {
        name: draw(conversations(sizes) if name == "messages" else texts(sizes))
        for name in COLUMNS[kind]
        if name != "tools"
    }
    broken = draw(st.sampled_from([*COLUMNS[kind], None]))
    if broken is not None:
        row[broken] = draw(values(sizes))
    if draw(st.integers(0, 3)) == 0:
        row.pop(broken, None)
    return {**draw(st.dictionaries(texts(sizes), values(sizes), max_size=3)), **row}


def good_rows(kind: str) -> list[dict[str, Any]]:
    if kind == "chatml":
        return [
            {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(GOOD_ROWS)
        ]  # fmt: skip
    return [{name: f"{name[0]}{n}" for name in COLUMNS[kind]} for n in range(GOOD_ROWS)]


# ---- files ----


def files(suffix: str, kind: str, sizes: Sizes) -> SearchStrategy[DrawnFile]:
    return MAKERS[suffix](kind, sizes)


def _among(draw: DrawFn, good: Sequence[Any], odd: Sequence[Any]) -> list[Any]:
    """The good ones in their order, with the odd ones anywhere among them."""
    mixed: list[Any] = list(good)
    for one in odd:
        mixed.insert(draw(st.integers(0, len(mixed))), one)
    return mixed


def _torn(text: bytes, at: int, instead: bytes) -> bytes:
    """With other bytes in the place of one."""
    place = at % len(text)
    return text[:place] + instead + text[place + 1 :]


def _json_bytes(value: Any, *, escaped: bool) -> bytes:
    return json.dumps(value, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


@st.composite
def jsonl(draw: DrawFn, kind: str, sizes: Sizes) -> DrawnFile:
    raw = st.binary(max_size=12).map(lambda line: b"{" + line.replace(b"\n", b""))
    whole = st.builds(_json_bytes, odd_rows(kind, sizes) | values(sizes), escaped=st.booleans())
    torn = st.builds(_torn, whole, st.integers(0), st.binary(max_size=2).map(lambda some: some.replace(b"\n", b"")))
    deep = st.integers(100, 1500).map(
        lambda depth: b'{"%s": %s}' % (COLUMNS[kind][0].encode(), b"[" * depth + b"]" * depth)
    )
    odd = draw(st.lists(raw | whole | torn | deep, max_size=sizes.odd_rows))
    good = good_rows(kind)
    lines = [
        line
        for line in _among(draw, [_json_bytes(row, escaped=True) for row in good], odd)
        if line.strip(b" \t\r\xef\xbb\xbf")
    ]
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    return DrawnFile(".jsonl", kind, lambda path: path.write_bytes(end.join(lines)), good, len(lines))


@st.composite
def listed(draw: DrawFn, kind: str, sizes: Sizes) -> DrawnFile:
    """A .json document, whole or torn at one place."""
    good = good_rows(kind)
    rows = _among(draw, good, draw(st.lists(odd_rows(kind, sizes) | values(sizes), max_size=sizes.odd_rows)))
    text = _json_bytes(rows, escaped=True)
    if twice := draw(st.booleans()):
        text = text[:-1] + b', {"text": "once", "text": [{"a": 1, "a": NaN}]}]'
    if draw(st.booleans()):
        return DrawnFile(".json", kind, lambda path: path.write_bytes(text), good, len(rows) + twice)
    torn = _torn(text, draw(st.integers(0)), draw(st.binary(max_size=2)))
    return DrawnFile(".json", kind, lambda path: path.write_bytes(torn), good)


@st.composite
def toon(draw: DrawFn, kind: str, sizes: Sizes) -> DrawnFile:
    good = good_rows(kind)
    odd = draw(st.lists(odd_rows(kind, sizes), max_size=sizes.odd_rows))
    rows = _among(draw, good, odd)
    text = encode({"rows": _writable(rows)}).encode()
    if draw(st.booleans()):
        return DrawnFile(".toon", kind, lambda path: path.write_bytes(text), good, len(rows))
    torn = _torn(text, draw(st.integers(0)), draw(st.binary(max_size=2)))
    return DrawnFile(".toon", kind, lambda path: path.write_bytes(torn), good)


def _writable(value: Any) -> Any:
    """What TOON can say: no lone surrogates, and no numbers that JSON lacks."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {_writable(key): _writable(entry) for key, entry in value.items()}
        case list():
            return [_writable(entry) for entry in value]
        case _:
            return value


@st.composite
def table(draw: DrawFn, kind: str, sizes: Sizes) -> DrawnFile:
    """A CSV file; quotes stand in well-formed rows alone, since one that is never closed may take rows after it along."""
    names = [*COLUMNS[kind], "more"]
    cell = texts(sizes).map(lambda text: text.replace("\x00", ""))
    odd = st.lists(cell, min_size=len(names), max_size=len(names)).map(lambda cells: _csv_line(cells))
    bare = st.lists(texts(sizes).map(lambda text: text.translate({ord(c): None for c in '"\r\n'})), max_size=5).map(
        ",".join
    )
    good = [
        {name: json.dumps(value) if name == "messages" else value for name, value in row.items()}
        for row in good_rows(kind)
    ]
    lines = [_csv_line([row.get(name, "") for name in names]) for row in good]
    lines = _among(draw, lines, draw(st.lists(odd | bare.map(lambda line: line + "\n"), max_size=sizes.odd_rows)))
    text = ",".join(names) + "\n" + "".join(lines)
    rows = sum(line != "\n" for line in lines)
    return DrawnFile(".csv", kind, lambda path: path.write_bytes(text.encode("utf-8", "surrogatepass")), good, rows)


def _csv_line(cells: Sequence[str]) -> str:
    sink = io.StringIO()
    csv.writer(sink, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return sink.getvalue()


def cells_of_columns(sizes: Sizes) -> list[tuple[pa.DataType, SearchStrategy[Any]]]:
    """Arrow's types, each with values for it."""
    whole, days = st.integers(-(2**31), 2**31 - 1), st.integers(-(10**6), 10**8)
    text = texts(sizes).map(_writable)
    return [
        (pa.string(), text), (pa.large_string(), text), (pa.binary(), st.binary(max_size=20)), (pa.int64(), whole), (pa.float64(), st.floats()),
        (pa.bool_(), st.booleans()), (pa.date32(), days), (pa.timestamp("ns"), st.integers(-(2**62), 2**62)), (pa.timestamp("s"), st.integers(-(2**40), 2**40)),
        (pa.timestamp("us", tz="Mars/Olympus"), whole), (pa.time64("ns"), st.integers(0, 10**9)), (pa.duration("s"), st.integers(-(2**40), 2**40)),
        (pa.decimal128(38, 4), st.integers(-(10**30), 10**30).map(lambda digits: Decimal(digits).scaleb(-4))),
        (pa.list_(pa.string()), st.lists(text | st.none(), max_size=3)), (pa.struct([("role", pa.string()), ("n", pa.float32())]), st.fixed_dictionaries({"role": text, "n": st.none()})),
        (pa.map_(pa.string(), pa.int32()), st.lists(st.tuples(text, st.integers(0, 9)), max_size=3)), (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["x", ""])),
        (pa.null(), st.none()),
        (pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("weight", pa.float64())])), st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": text | st.none(), "weight": st.sampled_from([None, 1.0, 0.0])}), max_size=3)),
    ]  # fmt: skip


@st.composite
def columns(draw: DrawFn, kind: str, sizes: Sizes, suffix: str) -> DrawnFile:
    """Columns of one drawn type each, which good rows would have to share; or columns of text with good rows, some of it no UTF-8."""
    if kind != "chatml" and draw(st.booleans()):
        return draw(columns_of_bytes(kind, sizes, suffix))
    count = draw(st.integers(1, sizes.odd_rows))
    arrays = {}
    for name in [*COLUMNS[kind], _writable(draw(texts(sizes)))]:
        of_type, cell = draw(st.sampled_from(cells_of_columns(sizes)))
        arrays[name] = _array(draw(st.lists(st.none() | cell, min_size=count, max_size=count)), of_type)
    return DrawnFile(suffix, kind, lambda path: _write_columns(path, pa.table(arrays)), (), count)


@st.composite
def columns_of_bytes(draw: DrawFn, kind: str, sizes: Sizes, suffix: str) -> DrawnFile:
    good = good_rows(kind)
    cell = st.none() | st.binary(max_size=20) | texts(sizes).map(lambda text: text.encode("utf-8", "surrogatepass"))
    odd = draw(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS[kind], cell)), max_size=sizes.odd_rows))
    rows = _among(draw, [{name: text.encode() for name, text in row.items()} for row in good], odd)
    held = draw(st.sampled_from([pa.string(), pa.binary()]))
    arrays = {name: pa.array([row[name] for row in rows], pa.binary()).view(held) for name in COLUMNS[kind]}
    return DrawnFile(suffix, kind, lambda path: _write_columns(path, pa.table(arrays)), good, len(rows))


def _array(given: list[Any], of_type: pa.DataType) -> pa.Array:
    if pa.types.is_temporal(of_type):
        plain = pa.int32() if of_type == pa.date32() else pa.int64()
        return pa.array(given, plain).cast(of_type)
    return pa.array(given, of_type)


def _write_columns(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


MAKERS: dict[str, Callable[[str, Sizes], SearchStrategy[DrawnFile]]] = {
    ".jsonl": jsonl, ".json": listed, ".toon": toon, ".csv": table,
    ".parquet": lambda kind, sizes: columns(kind, sizes, ".parquet"), ".arrow": lambda kind, sizes: columns(kind, sizes, ".arrow"),
}  # fmt: skip


# ---- what is set aside ----


def same(kept: Any, given: Any) -> bool:
    """Whether a value that was set aside as JSON says the same as the one that was read."""
    match given:
        case dict():
            return (
                isinstance(kept, dict)
                and len(kept) == len(given)
                and all(same(kept.get(str(key)), entry) for key, entry in given.items())
            )
        case list() | tuple():
            return isinstance(kept, list) and len(kept) == len(given) and all(map(same, kept, given))
        case bytes():
            return kept == {"base64": base64.b64encode(given).decode()}
        case Decimal() | timedelta():
            return bool(kept == str(given))
        case date():
            return bool(kept == given.isoformat())
        case float():
            return bool(kept == given or (kept != kept and given != given))
        case None | bool() | int() | str():
            return bool(kept == given)
        case _:
            return bool(kept == str(given) or kept == given.isoformat())
