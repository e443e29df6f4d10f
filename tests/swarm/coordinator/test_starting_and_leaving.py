"""What a coordinator leaves behind when it ends, and what is told when it cannot start."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.access.client import Client
from swarm.errors import UserError
from swarm.events import Post, Stop
from swarm.planning import starting
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp
from tests.swarm.places import configure, coordinator, wait_for


@pytest.fixture
def sockets(unopened: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this run's sockets will be; short, since an ipc path holds 107 bytes."""
    root = Path(f"/tmp/runtime-{os.getpid()}")
    root.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(root))
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    yield unopened.sockets()
    shutil.rmtree(root)


def test_a_clean_end_leaves_no_socket_folder(unopened: RunFolder, sockets: Path) -> None:
    with coordinator(unopened) as process, Client(unopened) as owner:
        assert {path.name for path in sockets.iterdir()} == {"bus", "all"}
        owner.append(Stop(ref="run"))
        assert process.wait(timeout=60) == 130
    assert not sockets.exists()


@pytest.mark.parametrize("level", ["run", "user"])
def test_a_file_where_the_sockets_belong_is_told_with_the_reason(
    unopened: RunFolder, sockets: Path, level: str
) -> None:
    place = sockets if level == "run" else sockets.parent
    shutil.rmtree(place)
    place.write_text("not a folder")
    with pytest.raises(
        UserError, match=rf"{place}: is not a private folder of yours; remove it or set XDG_RUNTIME_DIR"
    ):
        starting.launch(unopened)


def test_a_full_disk_is_told_with_the_reason_although_no_file_can_hold_it(unopened: RunFolder, sockets: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # as a full disk: no file can grow
    try:
        with pytest.raises(UserError, match=r"the coordinator ended at once: .*no space"):
            starting.launch(unopened)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_who_may_only_read_the_folder_cannot_hold_its_locks(folder: RunFolder) -> None:
    if os.geteuid() or shutil.which("flock") is None:
        pytest.skip("only the superuser can become somebody else, and flock(1) takes the lock")
    for path in (folder.path, *folder.path.parents):
        if path.stat().st_uid == 0 and str(path).startswith("/tmp/pytest"):
            path.chmod(0o755)
    lock = folder.path / "collaboration/lock"
    lock.chmod(0o644)  # as earlier versions made it
    with Client(folder, "ada") as ada:
        ada.append(Post(ref="run", body="x"))
    done = subprocess.run(
        ["flock", "--nonblock", lock, "true"], user=12345, group=12345, extra_groups=[], capture_output=True, text=True,
        check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode and "Permission denied" in done.stderr, done


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process as Linux sets them")
def test_connections_of_strangers_that_use_up_all_descriptors_end_no_run(unopened: RunFolder, tmp_path: Path) -> None:
    port = sp.free_ports()
    configure(tmp_path, unopened, f"listen: tcp://127.0.0.1:{port}\n")
    with coordinator(unopened) as process, Client(unopened) as owner, contextlib.ExitStack() as strangers:
        owner.append(Post(ref="run", body="before"))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (96, 96))
        with contextlib.suppress(TimeoutError):
            for _ in range(300):
                strangers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.5))
        with pytest.raises(UserError, match=r"Too many open files, nothing was written; .*ulimit -n"):
            owner.append(Post(ref="run", body="during"))
        time.sleep(1)  # some looks at the clock
        assert process.poll() is None, (unopened.path / "coordinator.log").read_text()
        strangers.close()
        wait_for(lambda: posted(owner))
        assert process.poll() is None


def posted(owner: Client) -> bool:
    with contextlib.suppress(UserError):
        return owner.append(Post(ref="run", body="after")) > 0
    return False
