"""The 622 conformance cases of specification 4.4, each a test of its own, from the fixture files themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import toon

HOME = Path(os.environ.get("TOON_FIXTURES", Path(__file__).parents[2] / "../shared/toon/fixtures"))


def cases(direction: str) -> list[Any]:
    """One parameter per case of the files of a direction; one skipped test that says so where there are none."""
    files = sorted((HOME / direction).glob("*.json"))
    if not files:
        reason = f"no fixtures in {HOME}: set TOON_FIXTURES to the folder that holds encode/ and decode/"
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason), id="absent")]
    return [
        pytest.param(case, id=f"{file.stem}-{index}")
        for file in files
        for index, case in enumerate(json.loads(file.read_text(encoding="utf-8"))["tests"])
    ]


def _options(case: dict[str, Any]) -> dict[str, Any]:
    names = {"indentSize": "indent", "delimiter": "delimiter", "strict": "strict"}
    return {names[name]: value for name, value in case.get("options", {}).items()}


@pytest.mark.parametrize("case", cases("encode"))
def test_encoding_gives_the_text_of_the_fixture(case: dict[str, Any]) -> None:
    if case.get("shouldError"):
        with pytest.raises(toon.ToonError):
            toon.encode(case["input"], **_options(case))
    else:
        assert toon.encode(case["input"], **_options(case)) == case["expected"]


@pytest.mark.parametrize("case", cases("decode"))
def test_decoding_gives_the_value_of_the_fixture(case: dict[str, Any]) -> None:
    if case.get("shouldError"):
        with pytest.raises(toon.ToonError) as caught:
            toon.decode(case["input"], **_options(case))
        fault = caught.value
        assert fault.line is not None
        assert fault.column is not None
        assert 1 <= fault.line <= case["input"].count("\n") + 1
        assert 1 <= fault.column <= len(case["input"].split("\n")[fault.line - 1]) + 1
        return
    value = toon.decode(case["input"], **_options(case))
    assert value == case["expected"]
    assert _ordered(value) == _ordered(case["expected"])


def _ordered(value: Any) -> Any:
    """A value with its keys' order made visible, and true told from 1."""
    if isinstance(value, dict):
        return [(key, _ordered(item)) for key, item in value.items()]
    return [_ordered(item) for item in value] if isinstance(value, list) else (isinstance(value, bool), value)


@pytest.mark.skipif(not (HOME / "decode").is_dir(), reason=f"no fixtures in {HOME}")
def test_all_622_cases_are_there() -> None:
    assert [len(cases(direction)) for direction in ("encode", "decode")] == [188, 434]
