from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from swarm.errors import UserError
from swarm.planning import gpus
from swarm.planning.gpus import Gpu
from swarm.settings import Placement

THREE = [Gpu(index, f"GPU-{uuid}", "test", 10, 5) for index, uuid in enumerate(("aa11", "ab22", "cc33"))]


class NvmlError(Exception):
    pass


def driver(*, count: int = 1, starts: bool = True, tells_memory: bool = True) -> SimpleNamespace:
    """What nvidia-ml-py offers, as much of it as is used."""

    def init() -> None:
        if not starts:
            raise NvmlError("Driver Not Loaded")

    def memory(handle: int) -> SimpleNamespace:
        if not tells_memory:
            raise NvmlError("Not Supported")
        return SimpleNamespace(total=24_000, free=20_000 - handle)

    return SimpleNamespace(
        NVMLError=NvmlError, nvmlInit=init, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: count,
        nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}", nvmlDeviceGetName=lambda handle: b"NVIDIA Test",
    )  # fmt: skip


def test_the_drivers_gpus_are_found_with_their_memory(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", driver(count=2))
    assert gpus.found() == [
        Gpu(0, "GPU-0", "NVIDIA Test", 24_000, 20_000),
        Gpu(1, "GPU-1", "NVIDIA Test", 24_000, 19_999),
    ]


def test_memory_that_the_driver_does_not_tell_is_unknown_and_not_zero(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", driver(tells_memory=False))
    assert [(gpu.total_bytes, gpu.free_bytes) for gpu in gpus.found("0")] == [(None, None)]


@pytest.mark.parametrize("module", [None, driver(starts=False)], ids=["no library", "no driver"])
def test_without_a_driver_there_are_no_gpus(monkeypatch, module):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert gpus.found() == []


@pytest.mark.parametrize(
    ("visible", "indices"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [2, 0]), ("0,7,1", [0]), (" 1 ", [1]), ("GPU-cc", [2]), ("GPU-a", []), ("0,0", [0]), ("MIG-1", [])],
)  # fmt: skip
def test_cuda_visible_devices_is_read_as_cuda_reads_it(visible, indices):
    assert [gpu.index for gpu in gpus.seen(THREE, visible)] == indices


def test_a_config_chooses_among_the_gpus_that_are_there(monkeypatch):
    monkeypatch.setattr(gpus, "found", lambda: THREE)
    assert [gpu.index for gpu in gpus.devices(Placement(gpus=[2, 0])).gpus] == [2, 0]
    assert gpus.devices(Placement(gpus="none")).gpus == ()
    assert len(gpus.devices(Placement(gpus="all")).gpus) == 3
    with pytest.raises(UserError, match=r"^placement\.gpus: there is no GPU 3; this machine has 0, 1, 2$"):
        gpus.devices(Placement(gpus=[3]))


def test_the_gpu_of_a_mac_is_chosen_unless_the_config_says_otherwise(monkeypatch):
    """Row A17, on a machine that is injected."""
    import json

    from typer.testing import CliRunner

    from swarm.cli import app

    found = {}
    monkeypatch.setitem(sys.modules, "pynvml", None)
    for system, machine in (("Darwin", "arm64"), ("Darwin", "x86_64"), ("Linux", "aarch64")):
        monkeypatch.setattr("platform.system", lambda system=system: system)
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        found[system, machine] = json.loads(CliRunner().invoke(app, ["env", "--json"]).stdout)["gpus"]
        chosen = [[gpu.device for gpu in gpus.devices(Placement(gpus=named)).gpus] for named in ("all", "none")]
        assert chosen == ([["mps"], []] if machine == "arm64" else [[], []])
    assert found == {
        ("Darwin", "arm64"): ["Apple's GPU, by MPS"], ("Darwin", "x86_64"): [], ("Linux", "aarch64"): [],
    }  # fmt: skip
