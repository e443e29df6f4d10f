"""A21, A22, X06: every shipped config trains on the embedded base by an override, and its data are what their script writes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from swarm.config import load
from swarm.config.importers.rules import known
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench

ROOT = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(
    path
    for path in ROOT.glob("*.yaml")
    if path.stem not in {"gsm8k", "certify", "demo", "duo", "probe", "unified_mrpc"}
)
"""The others have tests of their own, or need data that is not shipped."""
SMALL = (
    "base_model=tiny-toon", "max_steps=2", "learning_rate=1e-3", "gradient_accumulation_steps=1", "micro_batch_size=2", "sequence_len=256",
    "datasets.0.limit=12", "test_datasets.0.limit=2", "bf16=false", "warmup_ratio=0", "logging_steps=1",
)  # fmt: skip
STOPS = ("plateau_patience=null", "eval_steps=null", "ablate_examples=null", "optimizer=adamw")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


def streams(path: Path, *more: str) -> dict[str, StreamSettings]:
    return load(path, [*SMALL, *more], cwd=ROOT.parent).run.streams


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_stream_of_a_shipped_config_trains_two_steps_on_the_embedded_base(path: Path, tmp_path: Path) -> None:
    for name, settings in streams(path, *STOPS).items():
        done = Bench(tmp_path / name).trained(settings)
        assert done["trained"].step == 2, name
        assert done["trained"].figures["first_loss"] > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_says_in_its_first_lines_how_it_is_run_and_tried(path: Path) -> None:
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    command = f"# swarm run configs/{path.name}"
    assert first.startswith(command) and second.startswith(f"{command} base_model=tiny-toon ")
    words = second.removeprefix("# swarm run ").partition("      ")[0].split()[1:]
    tried = load(path, words, cwd=ROOT.parent).run
    assert all(settings.base_model == "tiny-toon" and settings.max_steps for settings in tried.streams.values())
    keys = {word.partition("=")[0] for word in words}
    assert keys <= known(StreamSettings).keys()


def test_one_config_holds_the_four_fast_probes() -> None:
    """A36: `swarm run configs/fast.yaml` is the four of them, side by side; it measures the drift from the base besides."""
    whole = "max_steps=60"  # with two steps no plateau could end one, and the config would be refused
    together = streams(ROOT / "fast.yaml", whole)
    for name, settings in together.items():
        stem = "fast_" + name.replace("-", "_")
        apart = streams(ROOT / f"{stem}.yaml", whole)
        assert list(apart) == [name]
        assert settings.model_copy(update={"metrics": apart[name].metrics}) == apart[name]
    assert list(together) == ["plain", "dora", "kl", "dora-kl"]


def test_the_fast_probes_are_as_short_as_their_rows_say() -> None:
    """A21."""
    whole = load(ROOT / "fast.yaml", cwd=ROOT.parent).run.streams
    for settings in whole.values():
        assert (settings.max_steps, settings.max_minutes, settings.ablate_examples) == (60, 10, 96)
        assert (settings.micro_batch_size, settings.gradient_accumulation_steps, settings.sequence_len) == (1, 8, 512)
    chosen = {name: (one.use_dora, one.kl_lambda, one.learning_rate) for name, one in whole.items()}
    assert chosen == {
        "plain": (False, None, 6e-5), "dora": (True, None, 6e-5), "kl": (False, 0.05, 5e-5), "dora-kl": (True, 0.03, 5e-5),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "steps", "rate"), [("regular", 500, 5e-5), ("long", 2000, 3e-5)])
def test_the_ordinary_configs_are_as_long_as_their_rows_say(name: str, steps: int, rate: float) -> None:
    """A22."""
    for settings in load(ROOT / f"{name}.yaml", cwd=ROOT.parent).run.streams.values():
        assert (settings.max_steps, settings.learning_rate) == (steps, rate)
        assert (settings.gradient_accumulation_steps, settings.sequence_len) == (32, 1024)
        assert settings.eval_rows > 0, "its answers are judged after the training"


def test_the_style_data_are_what_their_script_writes_and_share_no_prompt() -> None:
    files = runpy.run_path(str(ROOT / "data" / "make_style.py"))["files"]()
    for name, rows in files.items():
        found = [
            json.loads(line) for line in (ROOT / f"data/style/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert found == rows, f"{name}: python configs/data/make_style.py"
    prompts = [{row["prompt"] for row in files[name]} for name in ("pairs", "eval_pairs")]
    assert not prompts[0] & prompts[1]
    lengths = [[len(row[key]) for row in files["pairs"]] for key in ("chosen", "rejected")]
    assert abs(sum(lengths[0]) - sum(lengths[1])) < 0.1 * sum(lengths[1]), "length is not what is preferred"
