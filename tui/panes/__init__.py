"""The panes of the dashboard, one per file, and their list."""

from __future__ import annotations

from typing import Literal

from tui.panes.curves import Curves
from tui.panes.detail import Detail
from tui.panes.header import Banner, Header
from tui.panes.leaders import Leaders
from tui.panes.log import Lines
from tui.panes.pane import Pane
from tui.panes.streams import Streams
from tui.panes.workers import Workers

Area = Literal["top", "middle", "bottom"]
"""top: as high as the pane needs.  middle, bottom: side by side, in a frame; they share the width."""

PANES: tuple[tuple[Area, str, type[Pane]], ...] = (
    ("top", "header", Header),
    ("top", "banner", Banner),
    ("top", "streams", Streams),
    ("middle", "curves", Curves),
    ("middle", "detail", Detail),
    ("bottom", "leaders", Leaders),
    ("bottom", "log", Lines),
    ("bottom", "workers", Workers),
)
"""Where each stands, its id in the style sheet, and its class.  A new pane is a file here and an entry in this list."""
