"""On a terminal that knows ASCII only the same screen is drawn with ASCII."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from swarm import asciitext
from tests.tui.runs import Played, sketch
from tests.tui.screen import shown, text
from tui import looks


@pytest.mark.parametrize("given", ["━━━╸──", "▇▅▃▁", "╭─ loss · log ─╮", "▸●○◆★", "⣿⠁⠀", "漢字", "α16 → 3 − 2…", "é"])
def test_a_line_keeps_its_width(given: str) -> None:
    assert asciitext.plain(given).isascii()
    assert cell_len(asciitext.plain(given)) == cell_len(given)


def test_the_marks_of_streams_the_leader_and_an_ellipsis_are_distinguished() -> None:
    marks = asciitext.plain(f"{looks.SHAPES}★·…")
    assert len(set(marks)) == len(marks)


def test_progress_is_distinguished_without_colours() -> None:
    assert asciitext.plain("━━━╸──") == "====--"


@pytest.mark.parametrize(
    ("environment", "needed"),
    [
        ({"TERM": "dumb", "LANG": "de_DE.UTF-8"}, True),
        ({"TERM": "linux"}, True),
        ({"TERM": "xterm-256color", "LANG": "en_US.UTF-8"}, False),
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm", "LC_ALL": "C", "LANG": "en_US.UTF-8"}, True),
        ({"TERM": "xterm", "LC_CTYPE": "C.UTF-8", "LANG": "C"}, False),
    ],
)
def test_bare_consoles_and_locales_that_are_not_utf_8_are_known(environment: dict[str, str], needed: bool) -> None:
    assert asciitext.needed(environment) is needed


@pytest.mark.asyncio
async def test_no_character_beyond_ascii_is_drawn() -> None:
    async with shown(Played(sketch()), only_ascii=True) as (app, _):
        assert text(app).isascii()
        assert "qlora-8 STALLED" in text(app)


@pytest.mark.asyncio
async def test_without_colours_the_selected_stream_is_still_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with shown(Played(sketch())) as (app, pilot):
        await pilot.press("down")
        assert "▸■  lora-32" in text(app)
