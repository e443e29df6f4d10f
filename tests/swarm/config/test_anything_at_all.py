"""Whatever stands in a config, loading it ends in settings or in UserErrors, never in anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from swarm.config import load
from swarm.errors import UserErrors
from swarm.settings import Dataset, Placement, Promotion, RunSettings, StreamSettings

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = st.sampled_from(
    [
        *RunSettings.model_fields,
        *StreamSettings.model_fields,
        *Dataset.model_fields,
        *Placement.model_fields,
        *Promotion.model_fields,
        "defaults",
        "one",
        "lr",
        "<<",
        "",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["data/*.jsonl", "tiny-toon", "auto", "all", 10**400, "2e-4", "\0", "../x", "~", "//"])
)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), below, max_size=4),
    max_leaves=12,
)
STREAM = st.dictionaries(st.sampled_from(list(StreamSettings.model_fields)), VALUES, max_size=5)
CONFIGS = st.fixed_dictionaries(
    {"name": SCALARS, "streams": st.dictionaries(st.text(max_size=4) | st.just("one"), STREAM | VALUES, max_size=3)},
    optional={"defaults": STREAM | VALUES, "placement": VALUES, "promotion": VALUES, "retries": VALUES, "runs_dir": VALUES, "lease_seconds": VALUES},
)  # fmt: skip


def ends_well(folder: Path, text: str | bytes, *overrides: str, name: str = "my.yaml") -> None:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    try:
        config = load(Path(name), overrides, cwd=folder)
    except UserErrors as errors:
        assert errors.errors
        assert all(error.where and error.what and error.fix and "\n" not in str(error) for error in errors.errors)
    else:
        (folder / "again.yaml").write_text(config.dump(), encoding="utf-8")
        assert load(Path("again.yaml"), cwd=Path(folder)).run == config.run


@QUICK
@given(CONFIGS | VALUES)
def test_any_values_in_the_shape_of_a_config(tmp_path, value):
    ends_well(tmp_path, yaml.safe_dump(value, allow_unicode=True))


@QUICK
@given(st.text(alphabet=st.sampled_from("ab:{}[]-,&*!|>'\"#%@`?~<0.1e\n\t \\_"), max_size=60))
@example("&a : *a")
@example("{? : }")
@example("a: !!int 9e")
@example('a: "\\ud800"')
@example("? [a]\n: b")
@example("- &a [*a]")
@example("%YAML 9.9\n---\na")
@example("0o9: 0x")
@example("a: 1" + "0" * 5000)
def test_any_text_of_yaml_signs(tmp_path, text):
    ends_well(tmp_path, text)
    ends_well(tmp_path, text, name="my.toml")


@QUICK
@given(st.binary(max_size=80))
def test_any_bytes(tmp_path, data):
    ends_well(tmp_path, data)


GOOD = "name: q\ndefaults: {base_model: tiny-toon, datasets: [{path: openai/gsm8k}]}\nstreams: {one: {}, a.b: {}}\n"


@QUICK
@given(
    st.lists(
        st.builds(
            "{}={}".format,
            st.lists(KEYS | st.sampled_from(["0", "1", "9", "a", "b", "streams"]), max_size=4).map(".".join),
            st.text(max_size=12),
        ),
        max_size=3,
    )
)
@example(["datasets.0.path=" + "x" * 9000])
@example(["datasets.99999999999.path=x"])
@example(["streams=x", "streams.one.seed=1"])
@example(["streams.one=", "seed=3"])
@example(["seed=1" + "0" * 5000])
@example(["lora_target_modules=[*a]"])
def test_any_overrides(tmp_path, overrides):
    ends_well(tmp_path, GOOD, *overrides)


@pytest.mark.parametrize("line", ["learning_rate", "lora_r", "seed", "val_set_size", "eval_steps", "max_minutes"])
def test_numbers_of_any_size_end_well(tmp_path, line):
    for number in ("1e308", "1e999", "-0.0", "1" + "0" * 400, "-1", "0", "1e-320", ".nan"):
        ends_well(tmp_path, GOOD, f"{line}={number}")
