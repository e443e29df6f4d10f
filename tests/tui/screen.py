"""What the tests see of the dashboard: the screen as lines of text, and an app that plays a made-up run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from tests.tui.runs import Played
from tui.app import Dashboard

FAST_SECONDS = 0.02


def lines(app: Dashboard) -> list[str]:
    """The screen that is on top, as it would be sent."""
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def text(app: Dashboard) -> str:
    return "\n".join(lines(app))


@asynccontextmanager
async def shown(
    source: Played, size: tuple[int, int] = (100, 30), **how: Any
) -> AsyncIterator[tuple[Dashboard, Pilot[None]]]:
    """The app after its first picture."""
    app = Dashboard(source, period_seconds=how.pop("period_seconds", FAST_SECONDS), **how)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: app.pictures > 0)
        yield app, pilot


async def until(pilot: Pilot[None], holds: Any, seconds: float = 5.0) -> None:
    """Wait for something to hold; the test fails where it never does."""
    for _ in range(int(seconds / FAST_SECONDS)):
        await pilot.pause(FAST_SECONDS)
        if holds():
            await pilot.pause()
            return
    raise AssertionError("it never held")
