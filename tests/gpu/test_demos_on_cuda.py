"""The demonstrations of Unified on a GPU, on small bases or on yours (X04, U10, U11):

BASE=meta-llama/Llama-3.2-1B ENCODER=distilbert/distilbert-base-uncased pytest -m gpu tests/gpu/test_demos_on_cuda.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
