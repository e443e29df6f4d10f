"""Draws the dashboard of one snapshot as SVG, without a terminal."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from swarm.views.snapshot import Snapshot
from tui.app import Dashboard

SIZE = (100, 30)
"""Columns and rows, as README shows it."""


class Still:
    """A source whose snapshot never changes."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._closed = threading.Event()

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def wait(self, timeout_seconds: float) -> bool:
        self._closed.wait(timeout_seconds)
        return False

    def say(self, kind: str, ref: str, **facts: object) -> str:
        raise RuntimeError("a picture cannot act")

    def add(self, name: str, like: str, changes: Sequence[str], *, warm: bool, why: str = "") -> str:
        raise RuntimeError("a picture cannot act")

    def log_lines(self, since: int = 0, stream: str | None = None) -> list[str]:
        return list(self._snapshot.tail)

    def close(self) -> None:
        self._closed.set()


def picture(snapshot: Snapshot, path: Path, size: tuple[int, int] = SIZE) -> None:
    """Write the snapshot's picture as SVG."""
    path.write_text(asyncio.run(drawn(snapshot, size)), encoding="utf-8")


async def drawn(snapshot: Snapshot, size: tuple[int, int] = SIZE, *keys: str) -> str:
    """The SVG, after these keys were pressed."""
    app = Dashboard(Still(snapshot))
    async with app.run_test(size=size) as pilot:
        while not app.pictures:
            await pilot.pause(0.02)
        await pilot.press(*keys)
        await pilot.pause()
        return app.export_screenshot(title=f"toonswarm · {snapshot.run}")
