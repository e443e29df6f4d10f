"""The JSON Schema of a config agrees with what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from swarm import kinds
from swarm.config import yamlfile
from swarm.config.schema import schema
from swarm.config.tree import Problems
from swarm.errors import UserErrors
from swarm.settings import Dataset, StreamSettings

ROOT = Path(__file__).parents[3]
SCHEMA = schema()
DATA = "datasets: [{path: rows.jsonl, type: chatml}]"


def problems(text: str) -> list[str]:
    value: Any = yamlfile.read(text, "my.yaml", ROOT, Problems()).plain()
    return [
        f"{'.'.join(map(str, error.path))}: {error.message}"
        for error in Draft202012Validator(SCHEMA).iter_errors(value)
    ]


def test_the_schema_is_one_itself() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_matches_it(path: Path) -> None:
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        ("{lora_rr: 8}", "streams.one: Additional properties"),
        ("{lora_r: 0}", "streams.one.lora_r: 0 is less than"),
        ("{adapter: none_such}", "streams.one.adapter: 'none_such' is not one of"),
        ("{metrics: [none_such]}", "streams.one.metrics.0: 'none_such' is not one of"),
        ("{controller: {kind: unified, presett: glue}}", "streams.one.controller: "),
        ("{datasets: [{type: chatml}]}", "streams.one.datasets.0: 'path' is a required property"),
    ],
)
def test_it_refuses_what_reading_refuses(loading: Any, stream: str, what: str) -> None:
    text = f"name: run\ndefaults: {{base_model: tiny-toon, {DATA}}}\nstreams: {{one: {stream}}}\n"
    assert [found for found in problems(text) if found.startswith(what)], problems(text)
    with pytest.raises(UserErrors, match=r"streams\.one"):
        loading(text)


def test_it_has_every_setting_of_every_kind_with_its_description() -> None:
    found = SCHEMA["$defs"]["StreamSettings"]["properties"]
    for setting in kinds.GROUPS:
        flat = found[setting].get("anyOf", [found[setting]])[0]
        assert set(flat["enum"]) == set(kinds.installed(setting))
        for kind in kinds.installed(setting).values():
            assert kind.settings.model_fields.keys() <= found.keys()
    assert StreamSettings.model_fields.keys() <= found.keys()
    assert all(found[name].get("description") for name in StreamSettings.model_fields)
    assert Dataset.model_fields.keys() == SCHEMA["$defs"]["Dataset"]["properties"].keys()
    assert "`adapter: lora`" in found["lora_r"]["description"]
