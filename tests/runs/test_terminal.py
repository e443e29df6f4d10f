"""The dashboard in a real terminal: run, watch it move, detach, attach, stop."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runs import swarm_process as sp

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux: apt-get install tmux"),
]


class Terminal:
    """One tmux window of 110 x 30."""

    def __init__(self, folder: Path) -> None:
        self.name = f"swarm-test-{uuid.uuid4().hex[:8]}"
        self._tmux("new-session", "-d", "-s", self.name, "-x", "110", "-y", "30", "-c", str(folder))
        self.type(f"export HF_HUB_OFFLINE=1 PYTHONPATH={Path.cwd()} PS1='ready$ '")

    def _tmux(self, *words: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self.name, "-f", "/dev/null", *words], capture_output=True, text=True, check=True
        ).stdout

    def type(self, line: str) -> None:
        self._tmux("send-keys", "-t", self.name, line, "Enter")

    def press(self, key: str) -> None:
        self._tmux("send-keys", "-t", self.name, key)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-t", self.name, "-p")

    def wait_for(self, *texts: str) -> str:
        try:
            sp.wait_for(lambda: all(text in self.screen() for text in texts), f"{texts} on the screen", 60)
        except AssertionError as missing:
            raise AssertionError(f"{missing}\n{self.screen()}") from None
        return self.screen()

    def close(self) -> None:
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()
    list(sp.end_everything(tmp_path))


def test_run_watch_it_move_detach_attach_and_stop(terminal: Terminal, tmp_path: Path) -> None:
    config = sp.write_config(
        tmp_path, streams="  only: {lora_r: 2}", steps=3000, extra="  save_total_limit: 1", rows=60
    )
    swarm = f"{sys.executable} -m swarm.cli"
    terminal.type(f"clear; {swarm} run {config.name}")
    terminal.wait_for("toonswarm", "only", "q detach")
    terminal.wait_for("train", "tok/s", "/3000")
    [path] = (tmp_path / "runs").iterdir()
    folder = sp.RunFolder(path.resolve())
    first = sp.wait_for(
        lambda: [c.step for c in sp.state(folder).streams["only"].checkpoints], "a checkpoint", folder=folder
    )

    terminal.press("q")
    terminal.wait_for("detached", "goes on")
    sp.wait_for(
        lambda: len(sp.state(folder).streams["only"].checkpoints) > len(first), "a step after detaching", folder=folder
    )

    terminal.type(f"clear; {swarm} watch")
    terminal.wait_for("only", "q detach")
    terminal.press("q")
    terminal.wait_for("detached")

    terminal.type(f"clear; {swarm} stop; echo stopped with $?")
    terminal.wait_for("stopped with 0")
    state = sp.state(folder)
    assert state.end is not None
    assert state.end.rc == 130
