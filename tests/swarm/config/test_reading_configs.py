from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config import load
from swarm.config.paths import files_of
from swarm.config.tomllines import places
from swarm.config.tree import problem_rows
from swarm.config.yamlfile import scalar
from swarm.errors import UserError, UserErrors

HEAD = """\
name: quick
defaults:
  base_model: tiny-toon
  datasets: [{path: data/train.jsonl}]
"""


def test_defaults_are_laid_into_every_stream_and_its_own_keys_win(loading):
    run = loading(HEAD + "  lora_r: 4\nstreams:\n  narrow:\n  wide: {lora_r: 64}\n").run
    assert {name: stream.lora_r for name, stream in run.streams.items()} == {"narrow": 4, "wide": 64}
    assert run.streams["narrow"].base_model == "tiny-toon"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4), ("1E5", 1e5), (".5", 0.5), ("1_000", 1000), ("0x10", 16), ("010", 10), ("-3", -3), ("+.5e1", 5.0),
        ("true", True), ("False", False), ("null", None), ("", None), ("~", None),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("1e", "1e"), ("e5", "e5"),
    ],
)  # fmt: skip
def test_plain_scalars_are_read_as_people_mean_them(loading, text, value):
    assert scalar(text) == value and type(scalar(text)) is type(value)


def test_a_file_reads_two_e_minus_four_as_a_number_and_no_as_a_word(loading):
    run = loading(HEAD + "  learning_rate: 2e-4\n  lora_target_modules: [on, off]\nstreams: {no: }\n").run
    assert run.streams["no"].learning_rate == 2e-4
    assert run.streams["no"].lora_target_modules == ["on", "off"]


def test_two_escapes_of_json_are_one_character(loading):
    run = loading(HEAD + '  system_prompt: "\\ud83d\\ude00"\nstreams: {one: }\n').run
    assert run.streams["one"].system_prompt == "\U0001f600"


def test_whole_numbers_pass_where_a_number_is_wanted(loading):
    assert loading(HEAD + "streams: {one: {lora_alpha: 32, num_epochs: 2}}\n").run.streams["one"].lora_alpha == 32.0


def test_anchors_and_merge_keys_work_and_keep_the_line_they_were_written_on(loading):
    config = loading(HEAD + "streams:\n  one: &one {lora_r: 4, seed: 1}\n  two:\n    <<: *one\n    seed: 2\n")
    assert (config.run.streams["two"].lora_r, config.run.streams["two"].seed) == (4, 2)
    assert config.origins["streams.two.lora_r"] == "my.yaml:6"
    assert config.origins["streams.two.seed"] == "my.yaml:9"


def test_every_setting_of_every_stream_has_an_origin(loading):
    config = loading(HEAD + "streams:\n  one:\n    seed: 3\n", "streams.one.lora_r=2", "micro_batch_size=1")
    origins = {
        key.removeprefix("streams.one."): origin
        for key, origin in config.origins.items()
        if key.startswith("streams.one.")
    }
    assert origins["base_model"] == "my.yaml:3 (defaults)"
    assert origins["datasets.0.path"] == "my.yaml:4 (defaults)"
    assert origins["datasets.0.type"] == origins["lora_alpha"] == "built-in"
    assert origins["seed"] == "my.yaml:7"
    assert origins["lora_r"] == origins["micro_batch_size"] == "command line"
    assert {key.partition(".")[0] for key in origins} == set(type(config.run.streams["one"]).model_fields)


def test_toml_is_read_too_and_names_its_origins(loading):
    config = loading(
        'name = "t"\n[defaults]\nbase_model = "tiny-toon"\ndatasets = [{path = "data/train.jsonl"}]\n[streams.one]\nlora_r = 4\n',
        name="my.toml",
    )
    assert config.run.streams["one"].lora_r == 4
    assert config.origins["streams.one.lora_r"] == "my.toml:6"
    assert config.origins["streams.one.base_model"] == "my.toml:3 (defaults)"


ODD_TOML = """\
# a comment
name = "x"  # \u2028 ends no line
datasets = [
  {path = "a"},  # one
  {path = "b"} ]
text = \"""
a = 3
[no.header]
\"""
[[tests]]
path = 1
  [tests.sub]
  k.l = 2
[[tests]]
path = 3
[streams."a.b"]
r = {s = [1,
  2]}
"""


def test_each_key_of_a_toml_file_has_its_line_and_column():
    """Issue 16: `check --json` names the place of each problem."""
    assert {".".join(map(str, steps)): tuple(place) for steps, place in places(ODD_TOML).items()} == {
        "name": (2, 1), "datasets": (3, 1), "datasets.0": (3, 1), "datasets.0.path": (3, 1), "datasets.1": (3, 1), "datasets.1.path": (3, 1),
        "text": (6, 1), "tests": (10, 1), "tests.0": (10, 1), "tests.0.path": (11, 1), "tests.0.sub": (12, 3), "tests.0.sub.k": (13, 3),
        "tests.0.sub.k.l": (13, 3), "tests.1": (14, 1), "tests.1.path": (15, 1), "streams": (16, 1), "streams.a.b": (16, 1),
        "streams.a.b.r": (17, 1), "streams.a.b.r.s": (17, 1), "streams.a.b.r.s.0": (17, 1), "streams.a.b.r.s.1": (17, 1),
    }  # fmt: skip


def test_behind_a_statement_of_very_many_lines_none_is_looked_for():
    text = "a = 1\nb = [\n" + "1,\n" * 5_000 + "]\nc = 2\n"
    assert places(text) == {("a",): (1, 1)}


@pytest.mark.parametrize(("text", "line", "column"), [("a = 1\nb = ]\n", 2, 5), ("a = [\n1,\n", 3, None)])
def test_where_a_file_is_no_toml_is_said_by_line(loading, text, line, column):
    with pytest.raises(UserErrors) as caught:
        loading(text, name="my.toml")
    (row,) = problem_rows(caught.value)
    assert (row["file"], row["line"], row["column"]) == ("my.toml", line, column)


# ---- overrides -------------------------------------------------------------------------------------------------------

TWO = HEAD + "  lora_r: 4\nstreams:\n  one: {lora_r: 5}\n  two: {}\n  v2.5: {}\n"


@pytest.mark.parametrize(
    ("overrides", "ranks"),
    [
        ([], {"one": 5, "two": 4, "v2.5": 4}),
        (["streams.two.lora_r=9"], {"one": 5, "two": 9, "v2.5": 4}),
        (["defaults.lora_r=9"], {"one": 5, "two": 9, "v2.5": 9}),
        (["lora_r=9"], {"one": 9, "two": 9, "v2.5": 9}),
        (["streams.one.lora_r=7", "lora_r=9"], {"one": 7, "two": 9, "v2.5": 9}),
        (["streams.v2.5.lora_r=7"], {"one": 5, "two": 4, "v2.5": 7}),
        (["lora_r=8", "lora_r=9"], {"one": 9, "two": 9, "v2.5": 9}),
    ],
)
def test_the_command_line_wins_and_the_narrower_key_wins_over_the_wider(loading, overrides, ranks):
    run = loading(TWO, *overrides).run
    assert {name: stream.lora_r for name, stream in run.streams.items()} == ranks


def test_an_override_reaches_into_lists_and_groups_that_are_not_there_yet(loading, project):
    config = loading(
        "name: quick\ndefaults: {base_model: tiny-toon, datasets: [{type: text}]}\nstreams: {one: }\n",
        "datasets.0.path=data/*.json",
        "datasets.1.path=data/train.jsonl",
        "placement.gpus=[0, 1]",
        "streams.one.lora_target_modules=[q_proj, v_proj]",
        "promotion.metric=exact_match",
    )
    one = config.run.streams["one"]
    assert [(d.path, d.type) for d in one.datasets] == [
        (f"{project}/data/*.json", "text"),
        (f"{project}/data/train.jsonl", "auto"),
    ]
    assert (config.run.placement.gpus, one.lora_target_modules) == ([0, 1], ["q_proj", "v_proj"])
    assert config.run.promotion.metric == "exact_match"


def test_values_on_the_command_line_need_no_quoting_for_yaml(loading, project):
    (project / "a: b #c.jsonl").write_text("{}\n")
    assert loading(TWO, "datasets.0.path=*.jsonl").run.streams["one"].datasets[0].path == f"{project}/*.jsonl"
    assert (
        loading(TWO, "datasets.0.path=a: b #c.jsonl").run.streams["one"].datasets[0].path == f"{project}/a: b #c.jsonl"
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_where_they_were_written(loading, project):
    (project / "elsewhere").mkdir()
    (project / "elsewhere" / "own.jsonl").write_text("{}\n")
    (project / "my.yaml").write_text(HEAD + "streams: {one: }\n")
    in_file = load(Path("../my.yaml"), cwd=project / "elsewhere").run
    typed = load(project / "my.yaml", ["datasets.0.path=own.jsonl"], cwd=project / "elsewhere").run
    assert in_file.streams["one"].datasets[0].path == f"{project}/data/train.jsonl"
    assert typed.streams["one"].datasets[0].path == f"{project}/elsewhere/own.jsonl"


def test_absolute_paths_and_names_of_the_hub_pass(loading, project):
    text = (
        HEAD
        + f"streams:\n  one: {{datasets: [{{path: {project}/data/dev.jsonl}}, {{path: openai/gsm8k, split: test}}]}}\n"
    )
    assert [d.path for d in loading(text).run.streams["one"].datasets] == [f"{project}/data/dev.jsonl", "openai/gsm8k"]


def test_a_path_into_a_folder_that_is_here_is_no_name_of_the_hub(loading):
    with pytest.raises(UserErrors, match=r"no file matches data/train in .*; did you mean train\.jsonl\?"):
        loading(HEAD.replace("data/train.jsonl", "data/train") + "streams: {one: }\n")


def test_brackets_in_real_names_are_no_wildcards(loading, project):
    (project / "data" / "rows[1].jsonl").write_text("{}\n")
    path = (
        loading(HEAD + "streams: {one: }\n", "datasets.0.path=data/rows[1].jsonl").run.streams["one"].datasets[0].path
    )
    assert files_of(path) == [project / "data" / "rows[1].jsonl"]


def test_a_base_in_a_folder_becomes_an_absolute_path_and_a_hub_name_stays(loading, project):
    (project / "models" / "own").mkdir(parents=True)
    (project / "models" / "own" / "config.json").write_text("{}")
    run = loading(
        HEAD + "streams:\n  one: {base_model: models/own}\n  two: {base_model: Qwen/Qwen2.5-0.5B-Instruct}\n"
    ).run
    assert [s.base_model for s in run.streams.values()] == [f"{project}/models/own", "Qwen/Qwen2.5-0.5B-Instruct"]


# ---- dump ------------------------------------------------------------------------------------------------------------


def test_what_dump_writes_loads_to_the_same_settings_from_anywhere(loading, project, tmp_path):
    text = (
        HEAD
        + 'streams:\n  one: {learning_rate: 2e-5, lora_target_modules: [q_proj, "2e-4", "no", "a \\U0001F600\\n\\x85\\"b"], max_minutes: 1.5}\n  "8": {}\n'
    )
    config = loading(text, "runs_dir=~/my runs")
    (tmp_path / "config.yaml").write_text(config.dump(), encoding="utf-8")
    again = load(tmp_path / "config.yaml", cwd=Path("/"))
    assert again.run == config.run
    assert load(tmp_path / "config.yaml", cwd=tmp_path).dump().count("built-in") == 0


def test_dump_says_where_every_setting_came_from(loading):
    lines = loading(HEAD + "streams:\n  one: {lora_r: 4}\n", "seed=7").dump().splitlines()
    settings = {line.split(":")[0].strip(" -"): line.partition(" # ")[2] for line in lines[1:] if " # " in line}
    assert settings["lora_r"] == "my.yaml:6"
    assert settings["base_model"] == "my.yaml:3 (defaults)"
    assert settings["seed"] == "command line"
    assert settings["retries"] == "built-in"


def test_a_config_that_was_copied_from_windows_reads_the_same(project):
    (project / "my.yaml").write_bytes(("\ufeff" + HEAD + "streams: {one: }\n").replace("\n", "\r\n").encode())
    assert load(Path("my.yaml"), cwd=project).run.name == "quick"


def test_all_problems_are_one_exception_that_counts_them(loading):
    with pytest.raises(UserErrors) as caught:
        loading("name: A\nstreams: {}\n")
    assert str(caught.value).splitlines()[-1] == "2 problems; nothing was started"
    assert all(isinstance(error, UserError) for error in caught.value.errors)
