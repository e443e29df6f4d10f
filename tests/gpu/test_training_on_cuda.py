"""What only a GPU can show: bf16 and NF4 training on cuda, one visible device, and memory figures of the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.messages import Message, Piece, Report
from swarm.settings import StreamSettings
from tests.trainer import tiny
from trainer import roles
from trainer.gpu_peak import GPU_PEAK
from trainer.lease import Lease
from trainer.place import Place

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:inner dimension:UserWarning"),  # bitsandbytes, of bases as small as these
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_base(tmp_path_factory.mktemp("base"))


def settings(base: Path, folder: Path, **changes: object) -> StreamSettings:
    path = folder / "doubles.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"double {n}", "completion": str(2 * n)}) + "\n" for n in range(60)))
    chosen = {
        "base_model": str(base), "datasets": [{"path": str(path), "type": "prompt_completion"}], "max_steps": 10, "sequence_len": 64,
        "micro_batch_size": 4, "learning_rate": 5e-3, "warmup_ratio": 0.0, "val_set_size": 12, "eval_rows": 4, "eval_max_new_tokens": 6,
    }  # fmt: skip
    return StreamSettings.model_validate({**chosen, **changes})


def do(role: str, given: StreamSettings, folder: Path, **more: object) -> dict[str, object]:
    said: list[Message] = []
    lease = Lease(f"one/{role}", 1, lambda message, fact: said.append(message))
    assign = Piece(ref=lease.ref, token=1, role=role, stream="one", settings=given, **more)
    roles.load(role).run(assign, lease, Place(folder, "gpu0"))
    return {event.kind: event for event in (message.event() for message in said if isinstance(message, Report))}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_dora": True},
        {"adapter": "qlora"},
        {"adapter": "qlora", "use_dora": True},
        {"fp16": True},
        {"fp16": True, "adapter": "qlora"},
    ],
    ids=str,
)
def test_a_stream_trains_and_is_judged_on_the_gpu(base: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    given = settings(base, tmp_path, **changes)
    prepared = do("prepare", given, tmp_path)["prepared"].path
    trained = do("train", given, tmp_path, prepared=prepared)["trained"]
    assert trained.figures["loss"] < trained.figures["first_loss"] - 0.2
    assert 0 < trained.figures["peak_bytes"] <= GPU_PEAK.bytes
    judged = {"prepared": prepared, "checkpoint": trained.path, "sha256": trained.sha256}
    verdict = do("validate", given, tmp_path, **judged)["verdict"]
    score = do("evaluate", given, tmp_path, **judged)["score"]
    assert verdict.result == "SUCCESS"
    assert score.figures["eval_loss"] == pytest.approx(verdict.figures["eval_loss"], abs=1e-3)


def test_bf16_is_used_where_the_gpu_has_it_and_adapters_stay_fp32(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from trainer.loading import compute_dtype, load_base

    given, place = settings(base, tmp_path), Place(tmp_path, "gpu0")
    if torch.cuda.is_bf16_supported():
        assert compute_dtype(given, place) is torch.bfloat16
        assert next(load_base(base, given, place).parameters()).dtype is torch.bfloat16
    halved = settings(base, tmp_path, fp16=True)
    assert next(load_base(base, halved, place).parameters()).dtype is torch.float16
    trained = do("train", given, tmp_path, prepared=do("prepare", given, tmp_path)["prepared"].path)["trained"]
    adapter = load_file(tmp_path / trained.path / "adapter_model.safetensors")
    assert {value.dtype for value in adapter.values()} == {torch.float32}


def test_nf4_weights_are_four_bits_on_the_device(base: Path, tmp_path: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    from trainer.loading import load_base

    model = load_base(base, settings(base, tmp_path, adapter="qlora"), Place(tmp_path, "gpu0"))
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers
    assert all(layer.weight.device.type == "cuda" and layer.weight.dtype is torch.uint8 for layer in layers)


def test_a_worker_sees_only_the_device_it_was_given() -> None:
    code = "import torch; print(torch.cuda.device_count())"
    for visible, count in (("0", "1"), ("", "0")):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == count
