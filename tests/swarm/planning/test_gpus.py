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


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A machine of 8 GB whose control groups stand in a folder."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    groups = tmp_path / "cgroup"
    groups.mkdir()
    monkeypatch.setattr(gpus, "MEMINFO", meminfo)
    monkeypatch.setattr(gpus, "CGROUPS", groups)
    monkeypatch.setattr(gpus, "_cgroup_folders", lambda: [groups])
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    return groups


def test_free_memory_is_the_systems_without_a_container(host):
    (host / "memory.max").write_text("max\n")
    assert gpus.free_memory_bytes() == 8_000_000 * 1024


def test_a_containers_limit_bounds_the_free_memory_and_file_pages_count_as_free(host):
    (host / "memory.max").write_text("3000000000\n")
    (host / "memory.current").write_text("2000000000\n")
    (host / "memory.stat").write_text("anon 5\ninactive_file 400000000\nactive_file 7\n")
    assert gpus.free_memory_bytes() == 1_400_000_000


def test_old_control_groups_are_read_and_their_endless_limit_is_none(host):
    (host / "memory").mkdir()
    (host / "memory" / "memory.usage_in_bytes").write_text("1000000000")
    (host / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert gpus.free_memory_bytes() == 8_000_000 * 1024
    (host / "memory" / "memory.limit_in_bytes").write_text("1500000000")
    assert gpus.free_memory_bytes() == 500_000_000


def test_memory_that_no_one_tells_is_unknown(host):
    gpus.MEMINFO.unlink()
    assert gpus.free_memory_bytes() is None


@pytest.mark.parametrize(
    ("said", "cores"), [("max 100000", 16), ("250000 100000", 2), ("50000 100000", 1), ("6400000 100000", 16)]
)
def test_a_containers_share_of_processor_time_bounds_the_cores(host, said, cores):
    (host / "cpu.max").write_text(said + "\n")
    assert gpus.cores() == cores


def test_what_vm_stat_says_on_macos_is_added_up():
    said = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:      100.\nPages active:   900.\nPages inactive:  200.\nPages speculative: 10.\n"
    assert gpus.pages_of_vm_stat(said) == 310 * 16384
    assert gpus.pages_of_vm_stat("") is None


def test_this_machine_has_cores_and_memory():
    assert gpus.cores() >= 1
    assert gpus.free_memory_bytes() is None or gpus.free_memory_bytes() > 0
