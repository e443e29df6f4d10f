"""Issue 17: the config for GLUE MRPC trains on files of its columns, and its figures stand beside the majority's (U11)."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from swarm.config import load
from tests.trainer.conftest import Bench
from trainer.embedded import encoder

CONFIG = Path(__file__).parents[2] / "configs/unified_mrpc.yaml"
NOUNS = ("storm", "market", "river", "judge", "garden", "engine")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")


def pairs(path: Path, count: int, seed: int) -> Path:
    """Two in three say the same, as in MRPC."""
    draw = random.Random(seed)
    rows = []
    for number in range(1000 * seed, 1000 * seed + count):
        one, label = draw.choice(NOUNS), int(draw.random() < 2 / 3)
        other = one if label else draw.choice([noun for noun in NOUNS if noun != one])
        rows.append(
            {"idx": number, "sentence1": f"the {one} {number}", "sentence2": f"a {other} {number}", "label": label}
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_config_tells_paraphrases_from_files_of_ones_own_beside_the_majority(tmp_path: Path) -> None:
    train, judged = pairs(tmp_path / "train.jsonl", 96, 1), pairs(tmp_path / "validation.jsonl", 48, 2)
    base = encoder.save(tmp_path / "base", (" ".join(NOUNS) for _ in range(2)))
    changes = [
        f"datasets.0.path={train}", f"test_datasets.0.path={judged}", f"base_model={base}", "max_steps=6", "val_set_size=0",
    ]  # fmt: skip
    streams = load(CONFIG, changes, cwd=tmp_path).run.streams
    assert [settings.controller for settings in streams.values()] == ["none"] * 6 + ["unified"] * 3
    bench, settings = Bench(tmp_path / "run"), streams["unified"]
    prepared = bench.do("prepare", settings)["prepared"].path
    trained = bench.do("train", settings, prepared=prepared)["trained"]
    score = bench.do("evaluate", settings, prepared=prepared, checkpoint=trained.path, sha256=trained.sha256)["score"]
    labels = [json.loads(line)["label"] for line in judged.read_text().splitlines()]
    assert score.figures["base_accuracy"] == pytest.approx(sum(labels) / len(labels), abs=1e-3)
    assert 0 <= score.figures["f1"] <= 1 and score.figures["base_f1"] < 0.5, (
        "the mean over labels, one of which is never named"
    )
    assert (bench.place.stream_folder("one") / "phi_log.csv").read_text().count("\n") == 7
