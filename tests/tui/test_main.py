"""The command refuses without a terminal, before Textual starts, and makes pictures without one."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.swarm import places
from tests.tui.runs import Played, sketch
from tui.__main__ import first_whole
from tui.picture import SIZE, picture


def test_without_a_terminal_it_says_so_in_one_line_and_exits_2() -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tui", "nowhere"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=30,
    )
    said = [line for line in ran.stderr.splitlines() if not line.startswith("import time:")]
    assert (ran.returncode, ran.stdout, said) == (2, "", ["tui: no terminal here; use swarm watch --plain"])
    assert "textual" not in ran.stderr.replace("no terminal", "")


def test_a_folder_that_holds_no_run_is_a_clear_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tui", str(tmp_path), "--screenshot", str(tmp_path / "a.svg")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ})
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "a.svg").exists()


def test_a_dashboard_whose_terminal_is_gone_leaves_though_nobody_hung_up(tmp_path: Path) -> None:
    """Of another session's terminal no signal comes, and Textual would read its end for ever."""
    folder = places.opened(tmp_path)
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "tui", str(folder.path)]
    shown = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        assert os.read(master, 1), "something is drawn"
        assert shown.poll() is None
        os.close(master)
        assert shown.wait(timeout=60) == 0
    finally:
        shown.kill()


def test_a_picture_is_an_svg_of_the_whole_screen(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.svg"
    picture(sketch(), path, SIZE)
    drawn = path.read_text(encoding="utf-8").replace("&#160;", " ")
    assert drawn.startswith("<svg")
    for word in ("toonswarm", "lora-32", "STALLED", "no step for 31 s", "detach", "checkpoint"):
        assert word in drawn


def test_a_picture_waits_for_streams() -> None:
    assert first_whole(Played(sketch())).streams
