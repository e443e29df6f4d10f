"""Can the answer be read as JSON, as JSON of a schema, as TOON?"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from toon import ToonError, decode
from trainer.judge.scorers import Given, package_of


def json_valid(given: Given) -> float:
    """The whole answer is one JSON value (RFC 8259: no NaN, no Infinity)."""
    return _json(given.text) is not NOTHING


def json_schema(given: Given) -> float:
    """It is, and it matches the schema in the file that the setting `json_schema` names."""
    validator, value = _validator(given.settings.json_schema), _json(given.text)
    return value is not NOTHING and bool(validator.is_valid(value))


def toon_valid(given: Given) -> float:
    """It is one TOON document of at least one line, read strictly."""
    try:
        decode(given.text)
    except ToonError:
        return False
    return bool(given.text.strip())


NOTHING = object()


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOTHING


def _refuse(constant: str) -> None:
    raise ValueError(constant)


@lru_cache(maxsize=8)
def _validator(path: str | None) -> Any:
    """Raises UserError where there is no schema that jsonschema takes."""
    if path is None:
        raise UserError("json_schema", "is not set, but `metrics` names json_schema", "name a file with a JSON schema")
    jsonschema = package_of("json_schema")
    try:
        schema = json.loads(Path(path).read_text(encoding="utf-8"))
        kind = jsonschema.validators.validator_for(schema)
        kind.check_schema(schema)
    except (OSError, ValueError, jsonschema.exceptions.SchemaError) as error:
        what = f"{path} holds no JSON schema ({' '.join(str(error).split())[:150]})"
        raise UserError("json_schema", what, "correct it") from error
    return kind(schema)
