"""The config that a run folder keeps is read back to the same settings, whatever legal values it was started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from swarm import figures, kinds
from swarm.config import load
from swarm.errors import UserErrors
from swarm.keys import Settings
from swarm.settings import Dataset, Placement, Promotion, RunSettings, StreamSettings
from swarm.settings.pruner import TAKES

GIVEN_HERE = {
    "base_model",
    "datasets",
    "test_datasets",
    "val_datasets",
    "sealed_datasets",
    "judge",
    "models",
    "search",
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
    if name == "layers_to_transform":
        return st.none() | st.integers() | TEXTS | st.lists(st.integers() | TEXTS, max_size=3)
    if name.endswith("_pattern"):
        return st.dictionaries(st.from_regex(r"[a-z_.*0-9]{1,12}", fullmatch=True), st.integers(1, 99), max_size=2)
    if name == "arbiter":
        return st.none() | st.sampled_from(["none", "round_robin", "grad_norm", "alternate:12"])
    if name == "start_adapter":
        return st.sampled_from([None, "adapter"])
    if name == "approvers":
        return st.lists(st.from_regex(r"[a-z][a-z0-9]{1,5}", fullmatch=True), max_size=2, unique=True)
    if name in {"research", "feedback"}:
        return st.none()
    if name == "pruner":
        return st.none() | st.fixed_dictionaries({"type": st.sampled_from(list(TAKES))}, optional={"patience": st.integers(0, 9)})  # fmt: skip
    if name == "alerts":
        receiver = st.fixed_dictionaries({"url": st.just("https://a.example/b")}) | st.fixed_dictionaries({"command": st.lists(TEXTS, min_size=1)})  # fmt: skip
        return st.lists(receiver, max_size=2)
    if name == "prices":
        return st.dictionaries(TEXTS, st.floats(0, 99), max_size=2)
    if name == "budget":
        return st.none() | st.fixed_dictionaries({}, optional={"steps": st.integers(1), "usd": st.floats(0.1, 99)})
    if field.annotation is str:
        return TEXTS
    plain = st.from_type(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)  # type: ignore[arg-type]
    return plain.map(lambda value: value.model_dump() if isinstance(value, Settings) else value)


def write_what_is_named(folder: Path) -> None:
    (folder / "adapter").mkdir(exist_ok=True)
    for file in ("rows.jsonl", "more.jsonl", "adapter/adapter_config.json"):
        (folder / file).write_text("{}\n")


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
    write_what_is_named(tmp_path)
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


ROWS_OF_OWN = [{"path": "more.jsonl", "type": "text", "limit": 3}]
CHOSEN: dict[str, Any] = {
    "base_model": "tiny-toon", "datasets": [{"path": "rows.jsonl"}], "test_datasets": ROWS_OF_OWN, "val_datasets": ROWS_OF_OWN, "sealed_datasets": ROWS_OF_OWN,
    "judge": {"endpoint": "http://localhost:9/v1", "model": "m"}, "listen": "tcp://127.0.0.1:4567", "roles": {"validate": ["agent:ada", "worker"]},
    "placement": {"gpus": "none"}, "promotion": {"goal": "min"}, "name": "on", "streams": {"8": {}, "a.b": {"seed": 3}}, "path": "more.jsonl",
    "metric": "eval_loss", "controller_ranks": [0.9, 0.5, 0.1], "models": {"encoder": {"objective": "sft", "lora_r": 3}, "decoder": {}},
    "demonstration": "{completion} answers {prompt}",
}  # fmt: skip
"""A value for what needs files or has settings of its own."""
NEEDS: dict[str, dict[str, Any]] = {
    "val_datasets": {"eval_steps": 4}, "save": {"eval_steps": 4}, "warmup_steps": {"warmup_ratio": 0},
    **{key: {"controller_anchor_rows": 4} for key in [f"controller_{key}" for key in ("anchor_steps", "snapshots", "rho", "pull")]},
    **{key: {"plateau_patience": 3} for key in ("plateau_action", "use_jade", "plateau_min_delta", "plateau_window", "plateau_min_steps")},
    "early_stopping_min_delta": {"early_stopping_patience": 2, "eval_steps": 5}, "max_minutes_from": {"max_minutes": 5}, "plateau_times": {"plateau_patience": 3, "use_jade": True},
    "plateau_factor": {"plateau_patience": 3, "plateau_action": "bump"},
    "tie_trains_encoder": {"tie_tokens": 2}, **{key: {"controller_adapt": "rank"} for key in ["controller_ranks", "controller_rescale"]},
}  # fmt: skip
"""What a setting is legal with."""
PAIRS = {"type": "prompt_completion", "rejected": "worse"}
ROWS_OF_METHODS = {
    **dict.fromkeys(("method=dpo", "method=kto", "method=orpo"), PAIRS),
    "method=classify": {"type": "labelled"}, "method=mlm": {"type": "text"}, "method=contrastive": {"type": "prompt_completion"},
}  # fmt: skip
EVERY = [("run", RunSettings, name) for name in RunSettings.model_fields]
EVERY += [("dataset", Dataset, name) for name in Dataset.model_fields]
EVERY += [
    (name, group, one)
    for name, group in (("placement", Placement), ("promotion", Promotion))
    for one in group.model_fields
]
EVERY += [
    ("defaults", StreamSettings, name) for name in StreamSettings.model_fields if name != "search"
]  # it becomes trials
EVERY += [
    ("defaults", StreamSettings.chosen_by({}), one)
    for stop in kinds.installed("stop").values()
    for one in stop.settings.model_fields
]
EVERY += [
    (f"{setting}={name}", StreamSettings.chosen_by({setting: name}), one)
    for setting in kinds.GROUPS
    for name, kind in kinds.installed(setting).items()
    if not name.endswith("_kahan")  # their library is an extra
    for one in kind.settings.model_fields
]


@pytest.mark.parametrize(("place", "group", "name"), EVERY, ids=[f"{place}: {name}" for place, _, name in EVERY])
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_setting_alone_is_read_back(
    tmp_path: Path, place: str, group: type[Settings], name: str, data: st.DataObject
) -> None:
    """Where no value of it can be started with, Hypothesis fails the test as one that cannot be satisfied."""
    write_what_is_named(tmp_path)
    value = CHOSEN[name] if name in CHOSEN else data.draw(legal(group.model_fields[name], name))
    given_value = {**NEEDS.get(name, {}), name: value}
    text: dict[str, Any] = {
        "name": "q",
        "defaults": {"base_model": "tiny-toon", "datasets": [{"path": "rows.jsonl"}]},
        "streams": {"a": {}},
    }
    text["defaults"]["datasets"][0] |= ROWS_OF_METHODS.get(place, {})
    if place in {"adapter=control", "adapter=qcontrol"}:
        text["defaults"]["datasets"] = [{"path": "rows.jsonl", "control_class": one} for one in (1, -1, 0)]
    if name in {"control_class", "prefix_class"}:
        text["defaults"] |= {"adapter": "control", "allow_one_class": True}
    if place == "run":
        text |= given_value
    elif place == "dataset":
        text["defaults"]["datasets"][0] |= given_value
    elif place in {"placement", "promotion"}:
        text[place] = given_value
    else:
        if place == "method=duo":
            given_value = {"models": CHOSEN["models"], **given_value}
        text["defaults"] |= given_value | dict([place.split("=")] if "=" in place else [])
    (tmp_path / "my.yaml").write_text(json.dumps(text))
    try:
        config = load(Path("my.yaml"), cwd=tmp_path)
    except UserErrors:
        reject()
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
