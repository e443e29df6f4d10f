"""The config that a run folder keeps is read back to the same settings, whatever legal values it was started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from swarm import figures, kinds
from swarm.config import load
from swarm.errors import UserErrors
from swarm.keys import Settings
from swarm.settings import Dataset, Placement, Promotion, RunSettings, StreamSettings

GIVEN_HERE = {
    "base_model",
    "datasets",
    "test_datasets",
    "val_datasets",
    "sealed_datasets",
    "judge",
    "name",
    "streams",
    "placement",
    "promotion",
    "listen",
    "roles",
}
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


def legal(field: FieldInfo, name: str) -> st.SearchStrategy[Any]:
    """Values that the field's own type takes, unset ones as well."""
    if name in kinds.GROUPS:
        return st.sampled_from(list(kinds.installed(name)))
    if name == "metrics":
        return st.lists(st.sampled_from(figures.measurable()), max_size=3, unique=True)
    if name == "lora_target_modules":
        return TEXTS | st.lists(TEXTS, min_size=1, max_size=3)
    if name == "approvers":
        return st.lists(st.from_regex(r"[a-z][a-z0-9]{1,5}", fullmatch=True), max_size=2, unique=True)
    if field.annotation is str:
        return TEXTS
    plain = st.from_type(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)  # type: ignore[arg-type]
    return plain.map(lambda value: value.model_dump() if isinstance(value, Settings) else value)


def some_of(group: type[Settings]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {name: legal(field, name) for name, field in group.model_fields.items() if name not in GIVEN_HERE}
    return st.fixed_dictionaries({}, optional=fields)


def streams() -> st.SearchStrategy[dict[str, Any]]:
    choices = {name: st.sampled_from(list(kinds.installed(name))) for name in kinds.GROUPS}
    chosen = st.fixed_dictionaries({}, optional=choices)
    own = chosen.flatmap(lambda values: some_of(StreamSettings.chosen_by(values)).map(lambda rest: {**rest, **values}))
    return st.dictionaries(st.sampled_from(["a", "b.2", "on", "8"]), own, min_size=1, max_size=2)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    run=some_of(RunSettings), streams=streams(), dataset=some_of(Dataset), placement=some_of(Placement),
    promotion=some_of(Promotion),
)  # fmt: skip
def test_any_legal_settings(
    tmp_path: Path,
    run: dict[str, Any],
    streams: dict[str, Any],
    dataset: dict[str, Any],
    placement: dict[str, Any],
    promotion: dict[str, Any],
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    dataset["path"] = "rows.jsonl"
    text = {
        **run, "name": "q", "defaults": {"base_model": "tiny-toon", "datasets": [dataset], "val_set_size": 0.1},
        "streams": streams, "placement": placement, "promotion": promotion,
    }  # fmt: skip
    (tmp_path / "my.yaml").write_text(json.dumps(text))
    try:
        config = load(Path("my.yaml"), cwd=tmp_path)
    except UserErrors:  # legal one by one, and a contradiction together
        return
    (tmp_path / "again.yaml").write_text(config.dump(), encoding="utf-8")
    assert load(tmp_path / "again.yaml", cwd=Path("/")).run == config.run


@pytest.mark.parametrize(
    "scheduler", ["constant", "linear", "cosine", "constant_with_warmup", "polynomial", "rms_ratio"]
)
def test_every_schedule_is_read_back_with_its_warm_up(tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "my.yaml").write_text(
        "name: q\ndefaults: {base_model: tiny-toon, datasets: [{path: rows.jsonl}]}\n"
        f"streams: {{a: {{lr_scheduler: {scheduler}}}}}\n"
    )
    config = load(Path("my.yaml"), cwd=tmp_path)
    (tmp_path / "again.yaml").write_text(config.dump())
    again = load(Path("again.yaml"), cwd=tmp_path)
    assert again.run == config.run
    assert (again.run.streams["a"].warmup_ratio == 0) == (scheduler in {"constant", "rms_ratio"})
