"""Issue 17: the config for GLUE MRPC trains on files of its columns, and its figures stand beside the majority's (U11)."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file

from swarm import kinds
from swarm.config import load
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.trainer import encoder_families
from tests.trainer.conftest import Bench
from trainer import bases
from trainer.data.prepared import TRAIN, read_rows
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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("mrpc")
    return pairs(folder / "train.jsonl", 96, 1), pairs(folder / "validation.jsonl", 48, 2)


def words_of(train: Path) -> list[str]:
    rows = [json.loads(line) for line in train.read_text().splitlines()]
    return [row[column] for row in rows for column in ("sentence1", "sentence2")]


def majority(judged: Path) -> float:
    labels = [json.loads(line)["label"] for line in judged.read_text().splitlines()]
    return sum(labels) / len(labels)


def streams_of(train: Path, judged: Path, base: Path | str, cwd: Path, *more: str) -> dict[str, StreamSettings]:
    changes = [f"datasets.0.path={train}", f"test_datasets.0.path={judged}", f"base_model={base}", "val_set_size=0"]
    return load(CONFIG, [*changes, *more], cwd=cwd).run.streams


def test_the_config_tells_paraphrases_from_files_of_ones_own_beside_the_majority(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    train, judged = files
    base = encoder.save(tmp_path / "base", (" ".join(NOUNS) for _ in range(2)))
    streams = streams_of(train, judged, base, tmp_path, "max_steps=6")
    assert [settings.controller for settings in streams.values()] == ["none"] * 6 + ["unified"] * 3
    bench, settings = Bench(tmp_path / "run"), streams["unified"]
    prepared = bench.do("prepare", settings)["prepared"].path
    trained = bench.do("train", settings, prepared=prepared)["trained"]
    score = bench.do("evaluate", settings, prepared=prepared, checkpoint=trained.path, sha256=trained.sha256)["score"]
    assert score.figures["base_accuracy"] == pytest.approx(majority(judged), abs=1e-3)
    assert 0 <= score.figures["f1"] <= 1 and score.figures["base_f1"] < 0.5, (
        "the mean over labels, one of which is never named"
    )
    share = majority(judged)
    assert score.figures["base_positive_f1"] == pytest.approx(2 * share / (1 + share), abs=1e-3), "that of the source"
    assert (bench.place.stream_folder("one") / "phi_log.csv").read_text().count("\n") == 7


def test_files_of_glue_and_other_formats_give_the_same_rows_by_a_mapping_of_columns(
    tmp_path: Path, files: tuple[Path, Path]
) -> None:
    """U11: the TSV of GLUE with its own columns, CSV, Parquet; all are prepared to the same rows."""
    base = encoder.save(tmp_path / "base", (" ".join(NOUNS) for _ in range(2)))
    bench, found = Bench(tmp_path / "run"), []
    for ending, names in {"jsonl": NAMES, "csv": NAMES, "parquet": NAMES, "tsv": GLUE}.items():
        made = [written(file, tmp_path / f"{file.stem}.{ending}", names) for file in files]
        mapping = [f"{key}.0.{setting}={name}" for key in ("datasets", "test_datasets") for setting, name in zip(("text", "text_pair", "label"), names, strict=True)]  # fmt: skip
        settings = streams_of(*made, base, tmp_path, *mapping)["unified"]
        place = bench.place.run_folder / bench.do("prepare", settings)["prepared"].path
        found.append([(row.ids, row.labels) for row in read_rows(place / TRAIN)])
    assert len(found[0]) == 96 and all(rows == found[0] for rows in found)


NAMES, GLUE = ("sentence1", "sentence2", "label"), ("#1 String", "#2 String", "Quality")


def written(source: Path, path: Path, names: tuple[str, ...]) -> Path:
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    table = [[row[name] for name in NAMES] for row in rows]
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(dict(zip(names, cells, strict=True))) + "\n" for cells in table))
        case ".parquet":
            pq.write_table(pa.Table.from_pylist([dict(zip(names, cells, strict=True)) for cells in table]), path)
        case ".tsv":
            lines = ["\t".join(map(str, [cells[2], n, n, *cells[:2]])) for n, cells in enumerate(table)]
            path.write_text("\n".join(["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", *lines]))
        case _:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([names, *table])
    return path


@pytest.mark.parametrize("kind", encoder_families.SIZES)
def test_encoders_of_any_family_in_use_are_trained_by_it_as_planned(
    kind: str, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    """U11: with a pooler and without, with kinds of texts and without; what is trained is what the plan counts."""
    train, judged = files
    base = encoder_families.save(kind, tmp_path / "base", words_of(train))
    settings = streams_of(train, judged, base, tmp_path, "max_steps=2")["unified"]
    planned = kinds.adapter("lora").tensors(bases.facts_of(str(base)), settings)
    bench = Bench(tmp_path / "run")
    prepared = bench.do("prepare", settings)["prepared"].path
    trained = bench.do("train", settings, prepared=prepared)["trained"]
    saved = load_file(bench.place.run_folder / trained.path / ADAPTER)
    assert sum(value.numel() for value in saved.values()) == sum(math.prod(shape) for shape in planned.values())
    assert any(value.any() for name, value in saved.items() if "lora_B" in name)
    given = {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = bench.do("validate", settings, **given, figures=trained.figures)["verdict"]
    assert verdict.figures["base_eval_loss"] == pytest.approx(0.693147, abs=1e-5), "a new head prefers no label"
    score = bench.do("evaluate", settings, **given)["score"]
    assert 0 <= score.figures["f1"] <= 1 and score.figures["base_accuracy"] == pytest.approx(majority(judged), abs=1e-3)
