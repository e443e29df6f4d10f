"""Real runs for tests: the command line in a process of its own, tiny data, few steps; nothing is imitated."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from swarm.log import Entry, Log
from swarm.rundir import RunFolder
from swarm.settings import RunSettings
from swarm.state import State, fold

PATIENCE_SECONDS = 180.0


def write_config(folder: Path, *, streams: str, steps: int = 6, extra: str = "", rows: int = 40) -> Path:
    """A config with its data beside it, rows that the embedded base can read; a longer training saves twenty times."""
    data = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"n: {n}"}]}
        for n in range(rows + rows // 5)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data[:rows]))
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data[rows:]))
    text = f"""name: test
placement: {{cpu_streams: 2}}
defaults:
  base_model: tiny-toon
  datasets: [{{path: train.jsonl, type: chatml}}]
  test_datasets: [{{path: held.jsonl, type: chatml}}]
  sequence_len: 64
  micro_batch_size: 2
  max_steps: {steps}
  learning_rate: 5e-3
  save_steps: {max(2, steps // 20)}
  eval_rows: 2
  eval_max_new_tokens: 8
{extra}
streams:
{streams}
"""
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def environment() -> dict[str, str]:
    """What the commands of a test inherit; threads that wait for each other spinning would starve the tests beside them."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path.cwd()), "OMP_WAIT_POLICY": "PASSIVE"}


def swarm(
    *words: str, cwd: Path, check: int | None = 0, timeout: float = PATIENCE_SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "swarm.cli", *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    if check is not None:
        assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{_talk(cwd)}"
    return done


def _talk(cwd: Path) -> str:
    """What coordinator and workers printed, for a failing test."""
    found = [*cwd.glob("runs/*/coordinator.log"), *cwd.glob("runs/*/workers/*.log")]
    return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in found)


def start(config: Path, *overrides: str) -> RunFolder:
    """Start a run and leave it to itself."""
    done = swarm("run", config.name, "--detach", "--again", *overrides, cwd=config.parent)
    return RunFolder(Path(done.stdout.strip()))


def free_ports() -> int:
    """A port that is free on this machine, as the next one is."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def entries(folder: RunFolder) -> list[Entry]:
    return Log(folder.log).refresh()


def state(folder: RunFolder) -> State:
    return fold(entries(folder))


def wait_for(
    condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS, folder: RunFolder | None = None
) -> Any:
    """The first true value of the condition; an AssertionError that says what did not come."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(
        f"{what} did not come in {seconds:.0f} s\n{_talk(folder.path.parent.parent) if folder else ''}"
    )


def wait_for_end(folder: RunFolder) -> State:
    wait_for(lambda: state(folder).end, "the end", folder=folder)
    return state(folder)


def worker_pids(folder: RunFolder) -> dict[str, int]:
    """Of its workers, once each that is being started has a process."""

    def rows() -> list[dict[str, Any]]:
        status = swarm("status", str(folder.path), "--json", cwd=folder.path.parent.parent).stdout
        return cast("list[dict[str, Any]]", json.loads(status)["workers"])

    def are_made() -> bool:
        return all(row["pid"] for row in rows() if row["state"] == "starting")

    wait_for(are_made, "a process of each worker", folder=folder)
    return {row["worker"]: row["pid"] for row in rows() if row["pid"]}


def coordinator_pid(folder: RunFolder) -> int:
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        words = _words(process)
        if "swarm.coordinator" in words and str(folder.path) in words:
            return int(process.parent.name)
    raise AssertionError("no coordinator")


def living_workers(folder: RunFolder) -> list[int]:
    return [pid for pid in trainer_processes(folder) if _comm(pid) not in {"forkserver", ""}]


def living_trainers(folder: RunFolder) -> list[int]:
    """A worker's process has the name of the worker."""
    return [pid for pid in living_workers(folder) if _comm(pid).startswith("trainer")]


def _comm(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""  # it has just ended


def kill(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    """All that have not ended meanwhile: a worker that is not needed leaves by itself."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def trainer_processes(folder: RunFolder) -> list[int]:
    """Workers, and the process from which they are forked."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        words = _words(process)
        if "trainer" in words and str(folder.path) in words:
            found.append(int(process.parent.name))
    return found


def _words(cmdline: Path) -> list[str]:
    try:
        return cmdline.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def end_everything(folder: Path) -> Iterator[None]:
    """End the processes whose command line names this folder or what is in it; not a neighbour such as `test_x10` of `test_x1`."""
    yield
    named = re.compile(re.escape(str(folder)) + r"(?![\w.-])")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(process.parent.name)
        if pid != os.getpid() and any(named.search(word) for word in _words(process)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def settings(folder: RunFolder) -> RunSettings:
    """What the run was started with."""
    from swarm import config

    return config.load(folder.config, cwd=folder.path).run


def settings_now(folder: RunFolder) -> RunSettings:
    """With the streams that joined since."""
    from swarm import config

    return config.of_run(folder, state(folder).added)
