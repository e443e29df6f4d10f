"""Which processes count as the workers of a run: those that this program started for that folder, and no others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.launch import local
from swarm.launch.child import process_started
from swarm.launch.layout import WorkerSpec
from swarm.rundir import RunFolder

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """A process whose command line has these words behind the program, at the head of a group of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def process(*words: str, own_group: bool = True) -> subprocess.Popen[bytes]:
        code = "import time; time.sleep(60)"
        started.append(subprocess.Popen([sys.executable, "-c", code, *words], start_new_session=own_group))
        deadline = time.monotonic() + 10
        while Path(f"/proc/{started[-1].pid}/cmdline").read_bytes().count(b"\0") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.wait()


def words(folder: RunFolder, launch: str) -> tuple[str, ...]:
    return ("-m", "trainer", "--run", str(folder.path), "--launch", launch, "--threads", "1")


def note(folder: RunFolder, pid: int, launch: str) -> None:
    known = {"pid": pid, "started": process_started(pid), "launch": launch}
    folder.processes.write_text(json.dumps({"trainer-1": known}))


def test_a_worker_of_this_folder_and_this_launch_is_found_and_ended(folder: RunFolder, start: Start) -> None:
    worker = start(*words(folder, "cafe"))
    note(folder, worker.pid, "cafe")
    assert list(local.living(folder)) == ["trainer-1"]
    assert local.end_all(folder, grace_seconds=5) == ["trainer-1"]
    assert worker.wait(10) == -15


def test_a_process_that_only_a_file_of_the_folder_names_is_not_signalled(folder: RunFolder, start: Start) -> None:
    """A run folder from somebody else can name any process of ours: its pid and its start time are no secret."""
    other = RunFolder(folder.path.with_name("other"))
    unrelated = [
        (start("some", "other", "program"), "cafe"),
        (start(*words(other, "cafe")), "cafe"),  # a worker of another run
        (start(*words(folder, "beef")), "cafe"),  # of another launch
        (start(*words(folder, "cafe"), own_group=False), "cafe"),  # it does not lead its group: ours would be signalled
        (start(*words(folder, "")), ""),
    ]
    for process, launch in unrelated:
        note(folder, process.pid, launch)
        assert local.living(folder) == {}
        assert local.end_all(folder, grace_seconds=0.2) == []
        assert process.poll() is None


@pytest.mark.parametrize(
    "value",
    [
        {"trainer-1": {"pid": 1, "started": "1", "launch": "x"}},
        {"trainer-1": {"pid": -1, "started": "1", "launch": "x"}},
        {"trainer-1": {"pid": 0, "started": None, "launch": "x"}},
        {"trainer-1": {"pid": "1", "started": "1", "launch": "x"}},
        {"trainer-1": {"pid": os.getpid(), "started": "0"}},
        {"trainer-1": [1, "2"]},
        {"trainer-1": None},
        {"trainer-1": {"pid": 1 << 80, "started": "1", "launch": "x"}},
        {"trainer-1": {"pid": True, "started": "1", "launch": ["x"]}},
    ],
)
def test_a_file_of_another_shape_names_no_workers(folder: RunFolder, value: object) -> None:
    folder.processes.write_text(json.dumps(value))
    assert local.living(folder) == {}


def test_threads_of_a_worker_soon_sleep_while_they_wait_unless_the_user_has_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = WorkerSpec("trainer-1", ("train",), "cpu", threads=3)
    for variable in local.WAITING:
        monkeypatch.delenv(variable, raising=False)
    made = local.environment(spec)
    assert (made["OMP_WAIT_POLICY"], made["GOMP_SPINCOUNT"], made["OMP_NUM_THREADS"]) == ("PASSIVE", "1000", "3")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not local.WAITING.keys() & local.environment(spec).keys(), "it inherits what the user has chosen"


def test_a_worker_keeps_what_its_passes_free_unless_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = WorkerSpec("trainer-1", ("train",), "cpu")
    for variable in local.KEEPING:
        monkeypatch.delenv(variable, raising=False)
    assert local.KEEPING.items() <= local.environment(spec).items()
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    assert not local.KEEPING.keys() & local.environment(spec).keys(), "it inherits what the user has chosen"


@pytest.mark.parametrize(("gpu", "seen"), [(None, ""), (3, "3")])
def test_a_worker_sees_its_own_gpu_alone_and_starts_as_many_threads_as_it_was_given(
    gpu: int | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A17."""
    monkeypatch.setattr("os.environ", {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "TOKENIZERS_PARALLELISM": "true"})
    made = local.environment(WorkerSpec("trainer-1", ("train",), "cpu", threads=3, gpu_index=gpu))
    assert (made["CUDA_VISIBLE_DEVICES"], made["CUDA_DEVICE_ORDER"]) == (seen, "PCI_BUS_ID")
    assert (made["OMP_NUM_THREADS"], made["MKL_NUM_THREADS"], made["TOKENIZERS_PARALLELISM"]) == ("3", "3", "false")
    assert made["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
