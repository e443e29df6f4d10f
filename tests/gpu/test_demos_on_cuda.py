"""The demonstrations of Unified and Duo on a GPU, on small bases or on yours (X02, X04, U10, U11):

BASE=meta-llama/Llama-3.2-1B-Instruct ENCODER=distilbert/distilbert-base-uncased pytest -m gpu tests/gpu/test_demos_on_cuda.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.benchmarks import bench_duo
from tests.trainer import encoder_families, test_unified_mrpc
from tests.trainer.conftest import Bench
from trainer.place import Place
from trainer.stress_demo.__main__ import main

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.mark.parametrize("which", ["shock", "tasks"])
def test_a_demonstration_runs_on_the_gpu_and_names_who_wins(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([which, "--base", os.environ.get("BASE", "tiny-toon"), "--device", "gpu0", "--seeds", "2"]) == 0
    assert "\nlowest " in capsys.readouterr().out


def test_the_table_of_optimizers_is_made_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """X02: each arm at one rate, the decoder in NF4."""
    changes = {"max_steps": 10, "save_steps": 10, "eval_steps": 5}
    monkeypatch.setattr(bench_duo, "COMMON", {**bench_duo.COMMON, **changes})
    asked = ["--base", os.environ.get("BASE", "tiny-toon"), "--device", "gpu0", "--rates", "1e-4", "--minutes", "60"]
    assert bench_duo.main([str(tmp_path / "duo.jsonl"), *asked, "--set", "models.decoder.adapter=qlora"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(f"| {arm} | 0.0001") for line in lines) for arm in bench_duo.ARMS)


def test_paraphrases_are_told_on_the_gpu_beside_the_majority(tmp_path: Path) -> None:
    files = [test_unified_mrpc.pairs(tmp_path / f"{name}.jsonl", 96, seed) for seed, name in enumerate(("a", "b"))]
    base = os.environ.get("ENCODER") or encoder_families.save(
        "DistilBertForMaskedLM", tmp_path / "base", test_unified_mrpc.words_of(files[0])
    )
    settings = test_unified_mrpc.streams_of(*files, base, tmp_path, "max_steps=20")["unified"]
    bench = Bench(tmp_path / "run")
    bench.place = Place(bench.place.run_folder, "gpu0")
    prepared = bench.do("prepare", settings)["prepared"].path
    trained = bench.do("train", settings, prepared=prepared)["trained"]
    score = bench.do("evaluate", settings, prepared=prepared, checkpoint=trained.path, sha256=trained.sha256)["score"]
    assert {"f1", "accuracy", "base_f1", "base_accuracy"} <= score.figures.keys()
