"""On a terminal that knows ASCII only the same screen is drawn with ASCII."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tests.tui.runs import Played, sketch
from tests.tui.screen import shown, text
from tui import asciiscreen


@pytest.mark.parametrize("given", ["━━━╸──", "▇▅▃▁", "╭─ loss · log ─╮", "▸●○◆★", "⣿⠁⠀", "漢字", "α16 → 3 − 2…", "é"])
def test_a_line_keeps_its_width(given: str) -> None:
    assert asciiscreen.plain(given).isascii()
    assert cell_len(asciiscreen.plain(given)) == cell_len(given)


def test_progress_is_told_apart_without_colours() -> None:
    assert asciiscreen.plain("━━━╸──") == "====--"


@pytest.mark.parametrize(
    ("term", "encoding", "needed"),
    [
        ("dumb", "utf-8", True),
        ("linux", "UTF-8", True),
        ("xterm-256color", "utf-8", False),
        ("xterm", "ANSI_X3.4-1968", True),
    ],
)
def test_bare_consoles_are_known(term: str, encoding: str, needed: bool) -> None:
    assert asciiscreen.needed(term, encoding) is needed


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
        assert "▸■ lora-32" in text(app)
