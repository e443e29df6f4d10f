"""Which form is smaller, where, and how far the token estimate is from a real tokenizer."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest

import toon
from tests.toon.payloads import session, table

O200K_TOKENS: dict[str, tuple[int, int, int]] = {
    "event": (89, 125, 94),
    "table": (91217, 129707, 62162),
    "session": (6438, 10565, 6594),
}
"""Tokens of compact JSON, pretty JSON and TOON by o200k_base (gpt-tokenizer 4.0.0), of the payloads in tests/toon/payloads.py."""

PAYLOADS = {"event": table(8)[7], "table": table(1000), "session": session()}


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_estimate_is_within_eight_percent_of_the_tokenizer(name: str) -> None:
    value = PAYLOADS[name]
    texts = (json.dumps(value, separators=(",", ":")), json.dumps(value, indent=2), toon.encode(value))
    for text, tokens in zip(texts, O200K_TOKENS[name], strict=True):
        assert toon.estimated_tokens(text) == pytest.approx(tokens, rel=0.08)


def test_all_forms_are_measured() -> None:
    found = toon.stats(table(50))
    assert [size.form for size in found.sizes] == ["json", "json-pretty", "toon", "toon-tab", "toon-pipe"]
    assert found.sizes[2].size_bytes == len(toon.encode(table(50)))
    assert found.smallest.form.startswith("toon")
    assert found.estimated
    assert not found.losses


def test_it_says_where_toon_loses_and_why() -> None:
    value = {
        "runs": table(20),
        "one": {"a": {"b": 1}, "c": {"d": {"e": 2}}},
        "triples": [[n, n / 3, n / 7] for n in range(30)],
    }
    losses = {part.path: part.shape for part in toon.stats(value).losses}
    assert losses["triples"] == "array of arrays"
    assert losses["one"] == "object"
    assert "runs" not in losses


def test_any_callable_counts() -> None:
    found = toon.stats({"a": 1}, count_tokens=len)
    assert found.sizes[0].tokens == len('{"a":1}')
    assert not found.estimated


def test_compact_takes_the_smaller_form_and_says_which() -> None:
    rows = toon.compact(table(20))
    assert rows.form == "toon" and toon.decode(rows.text) == toon.decode(toon.encode(table(20)))
    triples = [[n, n + 1, n + 2] for n in range(30)]
    form, text = toon.compact(triples)
    assert form == "json" and json.loads(text) == triples
    assert toon.compact(triples, count_tokens=lambda text: -len(text)).form == "toon"


@pytest.mark.parametrize(
    ("value", "shape"),
    [({"a": 1}, "object"), ({"a": {"x": 1}, "b": {"x": 2}}, "keyed table"), ([{"x": 1}], "table"), ([1, 2], "values"), ([], "values"), ([[1], [2]], "array of arrays"), ([1, {"a": 1}], "mixed array")],
)  # fmt: skip
def test_shapes_have_names(value: object, shape: str) -> None:
    assert toon.stats(value).parts[0].shape == shape


@pytest.mark.parametrize(
    ("value", "json_text"),
    [
        (Decimal("1E400"), "1e+400"),
        ({"a": [Decimal("0.1000000000000000000001"), 0.5, "\ue000"]}, '{"a":[0.1000000000000000000001,0.5,"\ue000"]}'),
        ([Decimal("0." + "12" * 3000)], f"[0.{'12' * 3000}]"),
        (float("nan"), "null"),
        ({"at": date(2026, 11, 24)}, '{"at":"2026-11-24"}'),
    ],
)
def test_whatever_encodes_can_be_measured_with_all_its_digits(value: object, json_text: str) -> None:
    assert toon.compact(value, count_tokens=lambda text: text != json_text).text == json_text
    assert toon.stats(value).sizes[0].size_bytes == len(json_text.encode())
    assert toon.compact(value, count_tokens=lambda text: text == json_text).text in {json_text, toon.encode(value)}


def test_no_limit_of_reading_stands_in_the_way_of_measuring() -> None:
    row = {f"c{number}": number for number in range(20_000)}
    assert json.loads(toon.compact([row], count_tokens=lambda text: "{c0" in text).text) == [row]
    assert len(toon.stats([row], count_tokens=len).sizes) == 5
