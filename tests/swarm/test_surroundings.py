"""What a machine, a terminal and an account may lack: nothing of it costs a run, and what is measured is what a container leaves."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm import surroundings
from swarm.errors import UserError

PRINTS = "from swarm.surroundings import open_output; open_output(); print('a → b · ß … ✓ \\udcff')"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"PYTHONIOENCODING": "latin-1"}, b"a > b \xb7 \xdf ~ v \xff\n"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, b"a > b . ? ~ v \xff\n"),
        ({"PYTHONIOENCODING": "utf-8"}, "a → b · ß … ✓ ".encode() + b"\xff\n"),
    ],
    ids=["latin-1", "a C locale", "UTF-8"],
)
def test_what_an_encoding_lacks_is_printed_with_substitutes(
    environment: dict[str, str], wanted: bytes, tmp_path: Path
) -> None:
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "prints.py")],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (wanted, b"", 0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_that_can_draw_is_drawn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, can in {"xterm-256color": True, "dumb": False, "": False, "unknown": False}.items():
        monkeypatch.setenv("TERM", name)
        assert surroundings.can_draw(Terminal(), Terminal()) is can
        assert not surroundings.can_draw(Terminal(), io.StringIO())
        assert not surroundings.can_draw(Terminal(), None)


@pytest.mark.parametrize(
    "root", ["/proc", "/nowhere/at/all", "/dev/null", "/" + "long/" * 20], ids=lambda root: root[:12]
)
def test_a_runtime_folder_that_is_none_is_passed_over(
    root: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", root)
    monkeypatch.delenv("TMPDIR", raising=False)
    folder = surroundings.private_folder(f"test{os.getpid()}")
    try:
        assert folder.parent == Path(f"/tmp/toonswarm-{os.getuid()}")
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        folder.rmdir()


def test_where_no_folder_can_be_made_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "_made", lambda parent, mark: None)
    with pytest.raises(
        UserError, match=r"XDG_RUNTIME_DIR: no folder for sockets can be made in .*/tmp.*; set it to a folder"
    ):
        surroundings.private_folder("x")


# ---- a container ----


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 GB and 16 cores whose control groups stand in a folder."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    groups = tmp_path / "cgroup"
    groups.mkdir()
    monkeypatch.setattr(surroundings, "MEMINFO", meminfo)
    monkeypatch.setattr(surroundings, "CGROUPS", groups)
    monkeypatch.setattr(surroundings, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    return groups


def limit(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def test_free_memory_is_the_systems_without_a_container(host: Path) -> None:
    limit(host, memory__max="max")
    assert surroundings.free_memory_bytes() == 8_000_000 * 1024


def test_a_containers_limit_bounds_the_free_memory_and_file_pages_count_as_free(host: Path) -> None:
    stat = "anon 5\ninactive_file 400000000\nactive_file 7"
    limit(host, memory__max="3000000000", memory__current="2000000000", memory__stat=stat)
    assert surroundings.free_memory_bytes() == 1_400_000_000


def test_old_control_groups_are_read_and_their_endless_limit_is_none(host: Path) -> None:
    limit(host / "memory", memory__usage_in_bytes="1000000000", memory__limit_in_bytes="9223372036854771712")
    assert surroundings.free_memory_bytes() == 8_000_000 * 1024
    limit(host / "memory", memory__limit_in_bytes="1500000000")
    assert surroundings.free_memory_bytes() == 500_000_000


OWN = {
    "version 2": ("0::/a/b\n", ""),
    "a hybrid": ("4:memory:/x\n0::/a/b\n", "unified"),
    "version 1": ("9:cpu,cpuacct:/a/b\n4:memory:/a/b\n", "old"),
}


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("bounded", ["", "a", "a/b"])
def test_the_tightest_limit_on_the_way_up_counts_in_every_hierarchy(host: Path, kind: str, bounded: str) -> None:
    own, root = OWN[kind]
    (host.parent / "own").write_text(own)
    names = ("memory", "cpu,cpuacct") if root == "old" else (root, root)
    for name in names:
        (host / name / "a" / "b").mkdir(parents=True, exist_ok=True)
    if root == "old":
        limit(host / names[0] / bounded, memory__usage_in_bytes="0", memory__limit_in_bytes="1000")
        limit(host / names[1] / bounded, cpu__cfs_quota_us="200000", cpu__cfs_period_us="100000")
    else:
        limit(host / root / bounded, memory__max="1000", memory__current="0", cpu__max="200000 100000")
    assert (surroundings.free_memory_bytes(), surroundings.cores()) == (1000, 2)


def test_a_path_that_only_the_host_has_leaves_the_containers_root(host: Path) -> None:
    (host.parent / "own").write_text("0::/../../system.slice/docker-1.scope\n4:memory:/docker/1\n")
    limit(host / "memory", memory__usage_in_bytes="0", memory__limit_in_bytes="1000")
    assert surroundings.free_memory_bytes() == 1000


def test_memory_that_no_one_tells_is_unknown(host: Path) -> None:
    surroundings.MEMINFO.unlink()
    assert surroundings.free_memory_bytes() is None


@pytest.mark.parametrize(
    ("said", "cores"), [("max 100000", 16), ("250000 100000", 2), ("50000 100000", 1), ("6400000 100000", 16)]
)
def test_a_containers_share_of_processor_time_bounds_the_cores(host: Path, said: str, cores: int) -> None:
    limit(host, cpu__max=said)
    assert surroundings.cores() == cores


def test_what_vm_stat_says_on_macos_is_added_up() -> None:
    said = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:      100.\nPages active:   900.\nPages inactive:  200.\nPages speculative: 10.\n"
    assert surroundings.pages_of_vm_stat(said) == 310 * 16384
    assert surroundings.pages_of_vm_stat("") is None


def test_this_machine_has_cores_and_memory() -> None:
    assert surroundings.cores() >= 1
    free = surroundings.free_memory_bytes()
    assert free is None or free > 0


def test_what_a_process_prints_on_a_full_disk_is_lost_and_its_work_goes_on(tmp_path: Path) -> None:
    code = """
import sys, traceback
from swarm.surroundings import open_talk
open_talk()
for _ in range(9):
    print("x" * 9999)
    print("why", file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "kept")], stdout=full, stderr=full, check=False
        )
    assert (done.returncode, (tmp_path / "kept").read_text()) == (0, "done")
