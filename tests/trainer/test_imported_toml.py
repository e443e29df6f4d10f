"""C52, X08, X09: the source system's TOML, taken over by `swarm init --from`, trains, is validated and judged on the embedded base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from swarm.cli import app
from swarm.config import load
from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
GENERIC = """\
model_dir = '/mnt/data/Mistral-Large-Instruct-2407'
output_dir = '/mnt/data/outputs'
use_control_adapters = true
load_in_4bit = true
lora_rank = 16
lora_dropout = 0.1
control_adapter_type = "antisymmetrise"
lora_weight_decay = 10.0
lora_weight_decay_type = "nuclear"
lora_max_norm = 1.5
lr = 2e-5
epochs = 1
beta1 = 0.9
beta2 = 0.99
eps = 1e-6
sequence_len = 8192
gradient_accumulation_steps = 8
eval_gradient_accumulation_steps = 8
eval_fraction = 0.1
evals_per_run = 3
checkpoint_interval_hours = 1
max_checkpoints = 3
document_suffix = "\\n"
mask_tokens = true
mix_datasets = true
drop_tails = true
max_sequences = 1000
[[datasets]]
dataset_path = 'warm/*.txt'
control_class = 1
[[datasets]]
dataset_path = 'dry/*.json'
control_class = -1
[[datasets]]
dataset_path = 'both.jsonl'
control_class = 0
max_tokens = 2000
"""
QWQ = """\
model_dir = '/mnt/data/QwQ-32B'
output_dir = '/mnt/data/outputs'
use_control_adapters = true
load_in_4bit = true
lora_rank = 16
layers_to_transform = '0:61'
lr = 2e-5
lora_weight_decay = 4e2
pipeline_stages = 1
use_column_major_topology = true
sequence_len = 4096
gradient_accumulation_steps = 61
[[datasets]]
dataset_path = 'warm/*.txt'
control_class = 1
max_sequences = 25757
drop_tails = true
[[datasets]]
dataset_path = 'dry/*.json'
control_class = -1
max_sequences = 12878
drop_tails = true
"""
COMMAND_R = """\
model_dir = '/mnt/data/c4ai-command-r-v01'
output_dir = '/mnt/data/outputs'
use_control_adapters = true
lora_rank = 64
layers_to_transform = '0:38'
lr = 5e-5
gradient_accumulation_steps = 40
sequence_len = 2048
sequence_prefix = 5
document_suffix = [206, 206]
drop_tails = true
mix_datasets = true
[[datasets]]
dataset_path = 'warm/*.txt'
control_class = 1
[[datasets]]
dataset_path = 'dry/*.json'
control_class = -1
"""
LORA = """\
model_dir = '/mnt/data/base'
output_dir = '/mnt/data/outputs'
lora_rank = 8
target_modules = ['q_proj', 'down_proj']
lora_weight_decay = 10
lr = 2e-5
sequence_len = 4096
[[datasets]]
dataset_path = 'warm/*.txt'
"""
WHOLE = """\
model_dir = '/mnt/data/base'
output_dir = '/mnt/data/outputs'
full_fine_tune = true
lr = 2e-5
sequence_len = 4096
[[datasets]]
dataset_path = 'warm/*.txt'
"""
OURS = """\
name = "ours"
[defaults]
base_model = "org/base"
adapter = "control"
control_site = "mlp"
lora_r = 4
learning_rate = 2e-5
evals_per_run = 2
[[defaults.datasets]]
path = "warm/*.txt"
type = "document"
[[defaults.datasets]]
path = "dry/*.json"
type = "document"
control_class = -1
[streams.one]
[streams.mirrored]
control_adapter_type = "symmetrise"
"""
SMALL = (
    "base_model=tiny-toon",
    "sequence_len=64",
    "gradient_accumulation_steps=1",
    "max_steps=2",
    "eval_rows=0",
    "val_set_size=2",
)
FOUR_LAYERS = "layers_to_transform=0:-2"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Documents of two styles: a file each, and a list of texts."""
    for name in ("warm", "dry"):
        (tmp_path / name).mkdir()
    warm, dry = (
        [f"{word} number {number}: " + f"{word} {number} " * 20 for number in range(10)] for word in ("gladly", "null")
    )
    for number, text in enumerate(warm):
        (tmp_path / f"warm/{number}.txt").write_text(text)
    (tmp_path / "dry/all.json").write_text(json.dumps(dry))
    (tmp_path / "both.jsonl").write_text("".join(json.dumps({"text": f"neither {text}"}) + "\n" for text in warm + dry))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(bench: Bench, settings: StreamSettings) -> None:
    """To the end, as a run does it."""
    prepared = bench.do("prepare", settings)["prepared"].path
    trained = bench.do("train", settings, prepared=prepared)["trained"]
    given = {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", settings, **given, figures=trained.figures)["verdict"]
    assert trained.step == 2 and verdict.result != "FAIL", verdict.body
    assert bench.do("evaluate", settings, **given)["score"].figures["eval_loss"] > 0


@pytest.mark.parametrize(
    ("text", "adapter", "more"),
    [
        (GENERIC, "qcontrol", ()), (QWQ, "qcontrol", (FOUR_LAYERS,)), (COMMAND_R, "control", (FOUR_LAYERS,)), (LORA, "lora", ()), (WHOLE, "full", ()),
    ],
    ids=["generic", "qwq", "command-r", "lora", "whole"],
)  # fmt: skip
def test_a_toml_of_the_source_system_is_taken_over_and_runs_to_its_end(
    folder: Path, text: str, adapter: str, more: tuple[str, ...]
) -> None:
    (folder / "theirs.toml").write_text(text)
    made = CliRunner().invoke(app, ["init", "ours.yaml", "--from", "theirs.toml"], catch_exceptions=False)
    assert made.exit_code == 0 and "no row was rendered: there is no folder /mnt/data/" in made.output, made.output
    (settings,) = load(folder / "ours.yaml", [*SMALL, *more], cwd=folder).run.streams.values()
    assert settings.adapter == adapter
    done(Bench(folder / "run"), settings)


def test_toml_with_keys_of_ours_runs_as_it_is(folder: Path) -> None:
    (folder / "ours.toml").write_text(OURS)
    streams = load(folder / "ours.toml", SMALL, cwd=folder).run.streams
    assert list(streams) == ["one", "mirrored"]
    for name, settings in streams.items():
        done(Bench(folder / name), settings)


def test_a_decay_of_whole_norms_that_leaves_nothing_of_a_step_is_named(folder: Path) -> None:
    """C10: `l1` there overshoots; here it takes off as much as it says, and the recipe's 10 is more than a step adds."""
    (folder / "theirs.toml").write_text(GENERIC.replace('"nuclear"', '"l1"'))
    assert CliRunner().invoke(app, ["init", "ours.yaml", "--from", "theirs.toml"]).exit_code == 0
    (settings,) = load(folder / "ours.yaml", SMALL, cwd=folder).run.streams.values()
    with pytest.raises(UserError, match=r"lora_weight_decay took off all that step 1 added; lower it, or decay by"):
        Bench(folder / "run").trained(settings)
