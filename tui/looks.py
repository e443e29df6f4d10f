"""The theme, the colours of streams and states, and the style sheet of the dashboard; no behaviour.

The style sheet is a string and not a file, so that only Python files need packaging.
"""

from __future__ import annotations

from textual.theme import Theme

from swarm import figures

THEME = Theme(
    name="toonswarm",
    primary="#73d0ff",
    secondary="#dfbfff",
    accent="#ffad66",
    foreground="#cccac2",
    background="#151a24",
    surface="#1a202c",
    panel="#242b38",
    success="#bae67e",
    warning="#ffd173",
    error="#f28779",
    dark=True,
    variables={"border": "#3a4454", "border-blurred": "#2b3341"},
)

HUES = ("#5ccfe6", "#ffad66", "#bae67e", "#dfbfff", "#f28779", "#ffd173", "#73aaff", "#95e6cb")
"""Colours of the streams in their order; they repeat from the ninth on."""

DIM = "#707a8c"
FAINT = "#3a4454"
TROUGH = "#2b3341"
"""Colour of the part of a progress bar that is left."""
STRONG = "bold #ffffff"
GOOD = "#bae67e"
WARN = "#ffd173"
BAD = "bold #f28779"

STATES = {
    "wait": DIM,
    "prepare": "#95e6cb",
    "train": GOOD,
    "paused": WARN,
    "validate": "#73d0ff",
    "evaluate": "#73d0ff",
    "done": "#cccac2",
    "promoted": "bold #ffd173",
    "kept": GOOD,
    "discarded": DIM,
    "replica": DIM,
    "stopped": DIM,
    "failed": BAD,
    "STALLED": "bold reverse #f28779",
    "starting": DIM,
    "importing": "#95e6cb",
    "idle": DIM,
    "working": GOOD,
    "stalled": BAD,
    "unreachable": BAD,
    "left": DIM,
    "yielded": WARN,
    "gone": BAD,
    "parked": BAD,
    "orphan": WARN,
    "running": GOOD,
    "ended": "#73d0ff",
    "not started": DIM,
    "no coordinator": BAD,
}
"""Styles of the states of streams, workers and the run."""

KINDS = {
    "claim": "#73d0ff",
    "prepared": "#95e6cb",
    "checkpoint": "#95e6cb",
    "trained": GOOD,
    "done": GOOD,
    "adapter": GOOD,
    "score": "#dfbfff",
    "verdict": "#dfbfff",
    "promote": "bold #ffd173",
    "post": "#ffad66",
    "amend": "#ffad66",
    "approve": "#ffad66",
    "object": BAD,
    "pause": WARN,
    "resume": WARN,
    "stop": WARN,
    "yield": WARN,
    "retrain": WARN,
    "canary": WARN,
    "drop": WARN,
    "refuse": WARN,
    "expire": BAD,
    "fail": BAD,
}
"""Styles of the kinds of entries."""


SHAPES = "●■▲◆▼○□△"
"""Marks of the streams in the same order, so that curves can be distinguished without colours."""


def shape(place: int) -> str:
    """The mark of the stream at that place."""
    return SHAPES[place % len(SHAPES)]


def hue(place: int) -> str:
    """The colour of the stream at that place."""
    return HUES[place % len(HUES)]


CSS = """
Screen { background: $background; overflow: hidden; }
#header, #keys { background: $surface; }
#header { dock: top; }
#keys { dock: bottom; }
#banner { height: auto; display: none; padding: 0 1; background: $panel; }
#banner.-shown { display: block; }
#streams { height: auto; max-height: 45%; min-height: 3; }
#filter { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
#filter.-shown { display: block; }
#filter:focus { border: none; }
#middle { height: 1fr; min-height: 5; }
#bottom { height: 8; }
.-tall #bottom { height: 13; }
.-short #bottom { height: 6; }
.-tiny #bottom { display: none; }
.pane { width: 1fr; height: 1fr; border: round $border; border-title-color: $primary; border-subtitle-color: $text-muted; padding: 0 1; }
.pane:focus { border: round $primary; }
.-wide #curves { width: 3fr; }
.-wide #detail { width: 2fr; }
#workers, #leaders { display: none; }
.-workers #workers { display: block; }
.-leaders #leaders { display: block; }
.-workers.-narrow #log, .-leaders.-narrow #log { display: none; }
Table, Lines { overflow-x: hidden; scrollbar-size: 1 1; scrollbar-color: $border; scrollbar-background: $background; background: $background; }
Table > .table--cursor { background: #242d3d; }
Table > .table--header { color: #707a8c; }
LogScreen #whole { height: 1fr; }
DetailScreen #facts { height: auto; max-height: 50%; }
DetailScreen #curve { height: 1fr; }
Question, Prompt, KeysScreen { align: center middle; background: $background 60%; }
.box { width: auto; max-width: 100%; height: auto; max-height: 100%; padding: 1 2; border: round $accent; background: $surface; border-title-color: $accent; }
Prompt .box { width: 70; }
KeysScreen .box { width: 76; }
Prompt Input { border: none; height: 1; padding: 0; margin: 1 0 0 0; background: $panel; }
Toast { max-width: 70; }
"""


def beside_base(name: str, value: float | None, base: float | None) -> str:
    """Green where the figure is better than the bare base's, red where it is not."""
    goal = figures.of(name).goal
    if value is None or base is None or goal is None:
        return ""
    return GOOD if (value < base if goal == "min" else value > base) else BAD
