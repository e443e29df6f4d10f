"""Rows A17 and A24: Apple's GPU is chosen where there is one, and nothing there is computed in float64, which it lacks.

No Mac is at hand: the CPU stands in for it, and refuses float64 as MPS does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.testing import CliRunner

from swarm.cli import app
from swarm.errors import UserError
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from tests.trainer.loop.recipes import FIVE, loop_of, recipe
from trainer import certify, device, device_check
from trainer.loading import compute_dtype
from trainer.loop.decay import Decay
from trainer.place import Place

Make = Callable[..., StreamSettings]
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if any(isinstance(value, torch.Tensor) and value.dtype is torch.float64 for value in tree_leaves(made)):
            raise TypeError(f"{func}: the MPS framework doesn't support float64")
        return made


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose one GPU is Apple's."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.mps.empty_cache", lambda: None)
    monkeypatch.setattr("torch.mps.current_allocated_memory", lambda: 1000)
    monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda major, minor: (major, minor) <= (13, 0))
    monkeypatch.setattr(Place, "torch_device", property(lambda place: "cpu"))
    monkeypatch.setattr(device, "WITHOUT_FLOAT64", {"cpu"})
    with NoFloat64():
        yield


def test_a_command_takes_cuda_then_mps_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda": True, "mps": True}
    monkeypatch.setattr("torch.cuda.is_available", lambda: there["cuda"])
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: there["mps"])
    found = []
    for gone in ("none", "cuda", "mps"):
        there[gone] = False
        place = device.place_of(None)
        found.append((place.device, place.torch_device, place.on_gpu, place.on_cuda))
    assert found == [("gpu0", "cuda:0", True, True), ("mps", "mps", True, False), ("cpu", "cpu", False, False)]
    with pytest.raises(UserError, match="mps is not there"):
        device.place_of("mps")
    with pytest.raises(UserError, match=r"mps cannot be used.*gpus: none"):
        device.refuse_missing_gpu("mps")


@pytest.mark.parametrize(("named", "visible"), [("gpu3", "3"), ("mps", None), (None, None)])
def test_a_command_sees_the_gpu_that_is_named_in_the_drivers_order_and_mps_falls_back_on_the_cpu(
    named: str | None, visible: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", found := {})
    device.set_environment(named)
    assert found.get("CUDA_VISIBLE_DEVICES") == visible
    assert (found["CUDA_DEVICE_ORDER"], found["PYTORCH_ENABLE_MPS_FALLBACK"]) == ("PCI_BUS_ID", "1")


@pytest.mark.usefixtures("mps")
def test_the_loop_adds_up_in_float32_there() -> None:
    """Every kind of adapter, with DoRA's norms and the decay of the product."""
    streams = {**FIVE, "shrunk": recipe(0, decay=Decay("nuclear", 0.1, 1.0))}
    loop, kept, _ = loop_of(streams)
    loop.run()
    assert not kept.failures
    assert kept.ends.keys() == streams.keys()


@pytest.mark.usefixtures("mps")
@pytest.mark.parametrize("changes", [{"eval_steps": 2}, {"engine": "trl"}], ids=str)
def test_a_stream_trains_there_from_rows_to_its_last_checkpoint(
    bench: Bench, settings: Make, changes: dict[str, Any]
) -> None:
    bench.place = Place(bench.place.run_folder, "mps")
    trained = bench.trained(settings(**changes))["trained"]
    assert trained.step == 4
    assert "peak_bytes" not in trained.figures, "MPS counts none"


def test_bfloat16_is_used_from_the_macos_that_has_it(
    settings: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = Place(tmp_path, "mps")
    for newest, chosen in (((14, 0), torch.bfloat16), ((13, 3), torch.float32)):
        monkeypatch.setattr("torch.backends.mps.is_macos_or_newer", lambda *asked, newest=newest: asked <= newest)
        assert compute_dtype(settings(), place) is chosen
    assert compute_dtype(settings(bf16=True), Place(tmp_path, "cpu")) is torch.float32, "A01"
    with pytest.raises(UserError, match="MPS of this macOS has no bfloat16"):
        compute_dtype(settings(bf16=True), place)


@pytest.mark.usefixtures("mps")
def test_a_certificate_in_float64_is_the_cpus(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "streams.json"
    written.write_text(json.dumps({"one": settings().model_dump(mode="json")}))
    assert certify.main(["--settings", str(written), "--fp64", "--device", "mps"]) == 2
    assert "--fp64: Apple's GPU has no float64; take `--device cpu`" in capsys.readouterr().err


@pytest.mark.usefixtures("mps")
def test_the_check_says_what_the_device_computes_and_lacks() -> None:
    found = device_check.checked()
    assert (found["device"], found["float64"], found["agrees"]) == ("mps", False, True)


def test_swarm_env_computes_on_the_device_and_says_whether_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row A24."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = CliRunner().invoke(app, ["env", "--check"])
    assert done.exit_code == 0
    assert "cpu: agrees with the CPU (float32 to 0)" in done.stdout


@pytest.mark.parametrize(("factor", "status"), [(1.0, 0), (1.001, 1)])
def test_a_device_agrees_while_its_gradient_is_the_cpus_but_for_rounding(
    factor: float, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row A24."""
    kept, factors = device_check._gradient, cycle([factor, 1.0])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(device_check, "_gradient", lambda device, dtype: kept(device, dtype) * next(factors))
    assert device_check.main() == status
    found = json.loads(capsys.readouterr().out)
    assert found["agrees"] is (status == 0)
    assert found["differences"]["float32"] == pytest.approx(factor - 1, abs=1e-5)


def test_a_device_that_computes_otherwise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"device": "mps", "name": None, "differences": {"float32": 0.5}, "float64": False, "agrees": False}
    monkeypatch.setattr("swarm.cli.configs._checked_device", lambda: wrong)
    done = CliRunner().invoke(app, ["env", "--check"])
    assert done.exit_code == 1
    assert "mps: DISAGREES with the CPU (float32 to 0.5), no float64" in done.stdout


def test_a_base_in_4_bits_is_refused_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "{n}", "completion": "b"}}\n' for n in range(20)))
    config = tmp_path / "my.yaml"
    config.write_text(
        "name: q\nstreams:\n  one: {base_model: tiny-toon, adapter: qlora, datasets: [{path: rows.jsonl}]}\n"
    )
    done = CliRunner().invoke(app, ["check", str(config)])
    assert "my.yaml:3: streams.one.adapter: bases in 4 bits are not held on Apple's GPU" in str(done.exception)
    assert CliRunner().invoke(app, ["check", str(config), "placement.gpus=none"]).exit_code == 0
