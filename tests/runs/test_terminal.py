"""The dashboard in a real terminal: run, watch it move, leave in every way, attach, suspend, stop, see the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm import Agent
from swarm.log import LogWriter
from tests.runs import swarm_process as sp
from tests.swarm import places
from tests.swarm.story import Story

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

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", "-t", self.name, *keys)

    def screen(self) -> str:
        return self._tmux("capture-pane", "-t", self.name, "-p")

    def pipe(self, path: Path) -> None:
        """Keep all that is sent to the screen from here on."""
        self._tmux("pipe-pane", "-t", self.name, f"cat >> '{path}'")

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


SWARM = f"{sys.executable} -m swarm.cli"


def begun(terminal: Terminal, tmp_path: Path, *, steps: int = 3000) -> sp.RunFolder:
    """A run started from the terminal that shows its training."""
    config = sp.write_config(
        tmp_path, streams="  only: {lora_r: 2}", steps=steps, extra="  save_total_limit: 1", rows=60
    )
    terminal.type(f"clear; {SWARM} run {config.name} defaults.save_steps=5")
    terminal.wait_for("toonswarm", "only", "q detach")
    terminal.wait_for("train", "tok/s", f"/{steps}")
    [path] = (tmp_path / "runs").iterdir()
    return sp.RunFolder(path.resolve())


def front_ends(folder: Path) -> dict[str, int]:
    """The processes of `swarm run` and of its dashboard."""
    found = {}
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        words = sp._words(process)
        if "swarm.cli" in words and (process.parent / "cwd").resolve() == folder.resolve():
            found["swarm"] = int(process.parent.name)
        if "tui" in words and any(str(folder) in word for word in words):
            found["tui"] = int(process.parent.name)
    return found


def still_trains(folder: sp.RunFolder) -> None:
    first = [c.step for c in sp.state(folder).streams["only"].checkpoints]
    sp.wait_for(
        lambda: len(sp.state(folder).streams["only"].checkpoints) > len(first), "a checkpoint more", folder=folder
    )


def test_a_front_end_that_leaves_hangs_or_is_ended_is_not_the_end_of_the_run(
    terminal: Terminal, tmp_path: Path
) -> None:
    folder = begun(terminal, tmp_path)
    still_trains(folder)

    terminal.press("q", "l", "l", "x", "y")
    said = terminal.wait_for("detached", "goes on", f"swarm stop {folder.name}")
    assert "Traceback" not in said and "Error" not in said
    terminal.type(f"clear; {SWARM} watch")
    terminal.wait_for("only", "q detach")
    still_trains(folder)

    terminal.press("C-z")
    terminal.wait_for("Stopped", "ready$")
    assert {name: state_of(pid) for name, pid in front_ends(tmp_path).items()} == {"swarm": "T", "tui": "T"}
    terminal.type("clear; echo the shell answers")
    terminal.wait_for("the shell answers")
    terminal.type("fg")
    terminal.wait_for("only", "q detach")

    os.kill(front_ends(tmp_path)["swarm"], signal.SIGTERM)
    terminal.wait_for("detached", "ready$")
    sp.wait_for(lambda: front_ends(tmp_path) == {}, "the end of both processes", 30)
    terminal.type("clear; echo and ech''oes")
    terminal.wait_for("and echoes")
    still_trains(folder)

    terminal.type(f"clear; {SWARM} watch")
    terminal.wait_for("only", "q detach")
    os.kill(sp.coordinator_pid(folder), signal.SIGKILL)
    terminal.wait_for("no coordinator", "1 worker trains on; swarm resume adopts it")
    terminal.press("q")
    assert "goes on; " not in terminal.wait_for("its coordinator is gone; `swarm resume", "ready$")
    assert "no coordinator, `swarm resume` goes on: 1 train" in sp.swarm("digest", cwd=tmp_path).stdout
    terminal.type(f"clear; {SWARM} resume")
    terminal.wait_for("only", "q detach")
    still_trains(folder)
    terminal.press("q")
    terminal.wait_for("detached", "ready$")

    terminal.type(f"clear; {SWARM} stop; echo stopped with $?")
    terminal.wait_for("stopped with 0")
    state = sp.state(folder)
    assert state.end is not None
    assert state.end.rc == 130


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_at_the_end_of_the_run_the_result_stands_on_top_until_q_and_then_as_a_table(
    terminal: Terminal, tmp_path: Path
) -> None:
    folder = begun(terminal, tmp_path, steps=40)
    terminal.press("o")
    terminal.wait_for("note on only")
    terminal.press("n", "i", "c", "e")
    sp.wait_for_end(folder)
    terminal.press("!", "Enter")
    terminal.wait_for("ended", "★ only promoted", "nice!")
    assert [e.event.body for e in sp.entries(folder) if e.event.kind == "post"][-1] == "nice!"
    terminal.press("q")
    terminal.wait_for("winner: only", "ready$")


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e[red]RED[/red] \u2066" + "long" * 2000
"""A title, a cleared screen, colours in two ways, marks that turn the direction, markup, and more than any line holds."""


def test_what_others_write_while_the_dashboard_is_open_is_drawn_as_text(terminal: Terminal, tmp_path: Path) -> None:
    folder = places.opened(tmp_path)
    places.configure(tmp_path, folder)
    with LogWriter.open(folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in Story("wide").entries])
    with places.coordinator(folder), Agent("eve", folder.path) as eve:
        terminal.pipe(tmp_path / "sent")
        terminal.type(f"clear; {SWARM} watch")
        terminal.wait_for("wide", "q detach")
        eve.post(f"noted {ESCAPES}", "wide")
        eve.task("data/check", f"title {ESCAPES}")
        terminal.wait_for("noted ", "title ", "[red]RED[/red]")
        terminal.press("Enter")
        terminal.wait_for("noted ", "[red]RED", "esc back")
        terminal.press("q")
        terminal.wait_for("q detach")
        terminal.press("q")
        terminal.wait_for("detached")
    raw = (tmp_path / "sent").read_bytes()
    for harm in (b"\x1b]0;", b"\x1b[2J", "\u202e".encode(), "\u2066".encode(), "\x9b".encode()):
        assert harm not in raw, harm
