"""Streams that are judged together on a GPU: the figures of each alone within the rounding of bf16 (rows A16, A34)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from swarm.settings import StreamSettings
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from tests.trainer.roles.test_judged_together import Given, judged
from trainer.judge import jointly, measured
from trainer.place import Place

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]
KINDS: dict[str, dict[str, object]] = {
    "lora": {},
    "dora": {"use_dora": True, "lora_r": 4, "seed": 1},
    "part": {"lora_target_modules": ["v_proj", "down_proj"], "use_rslora": True, "seed": 2},
}


def trained(bench: Bench, folder: Path, adapter: str) -> dict[str, tuple[StreamSettings, Given]]:
    """By stream, how it was trained and what its judges are given."""
    rows = folder / "doubles.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"double {n}", "completion": str(2 * n)}) + "\n" for n in range(60)))
    base, made = tiny.save_base(folder / "base"), {}
    for name, own in KINDS.items():
        settings = StreamSettings.model_validate(
            {
                "base_model": str(base), "datasets": [{"path": str(rows), "type": "prompt_completion"}], "adapter": adapter,
                "max_steps": 20, "sequence_len": 64, "micro_batch_size": 4, "learning_rate": 5e-3, "val_set_size": 12,
                "eval_rows": 4, "eval_max_new_tokens": 6, **own,
            }
        )  # fmt: skip
        prepared = bench.do("prepare", settings)["prepared"]
        last = bench.do("train", settings, prepared=prepared.path)["trained"]
        given = {"prepared": prepared.path, "prepared_sha256": prepared.sha256, "checkpoint": last.path}
        made[name] = settings, {**given, "sha256": last.sha256}
    return made


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_streams_are_judged_together_on_the_gpu_as_each_is_alone(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path / "run")
    bench.place = Place(bench.place.run_folder, "gpu0")
    streams = trained(bench, tmp_path, adapter)
    batches: list[int] = []
    answered = jointly._answered

    def noted(*given: object, with_base: bool) -> object:
        found = answered(*given, with_base=with_base)  # type: ignore[arg-type]
        batches.append(len(found))
        return found

    monkeypatch.setattr(jointly, "_answered", noted)
    for role in ("validate", "evaluate"):
        alone = {}
        for name in KINDS:
            measured._measured.clear()
            alone[name] = judged(bench, role, streams, name).events[name][-1].figures
        measured._measured.clear()
        batches.clear()
        together = judged(bench, role, streams, *KINDS)
        for name in KINDS:
            figures = together.events[name][-1].figures
            assert figures.keys() == alone[name].keys()
            for figure in ("eval_loss", "base_eval_loss"):
                if figure in figures:
                    assert figures[figure] == pytest.approx(alone[name][figure], rel=0.02), (role, name, figure)
    assert batches == [4], "the base and the three adapters"
