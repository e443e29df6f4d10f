"""The dashboard's keys: what each does, for the app, for the last line and for the screen of keys."""

from __future__ import annotations

from textual.binding import Binding

ACTS = frozenset({"pause", "stop", "note", "retry", "approve", "clone", "new", "stop_run"})
"""Actions that change the run; they are not offered with --readonly."""

BINDINGS = (
    Binding("p", "pause", "pause", tooltip="pause the selected stream, or resume it"),
    Binding("x", "stop", "stop", tooltip="stop the selected stream (asks)"),
    Binding("r", "retry", "retry", tooltip="resume a stream that failed or was stopped"),
    Binding("a", "approve", "approve", tooltip="approve the promotion that waits (asks)"),
    Binding("c", "clone", "clone", tooltip="a new stream with the weights and moments of the selected one"),
    Binding("n", "new", "new", tooltip="a new stream like the selected one, from step 0"),
    Binding("m", "mark", "mark", tooltip="show the stream's curve with the others, or hide it"),
    Binding("slash", "filter", "filter", tooltip="show only streams with these words; escape: all"),
    Binding("enter", "detail", "detail", tooltip="the selected stream at full size"),
    Binding("l", "log", "log", tooltip="the whole log (f there: this stream only)"),
    Binding("w", "workers(False)", "workers", tooltip="workers by name; again: hide"),
    Binding("d", "workers(True)", "devices", tooltip="workers by device; again: hide"),
    Binding("e", "leaders", "leaders", tooltip="the leaderboard; again: hide"),
    Binding("o", "note", "note", tooltip="write a note into the log"),
    Binding("colon", "command_palette", "palette", tooltip="every command, by name"),
    Binding("question_mark", "keys", "keys", tooltip="this list"),
    Binding("q", "detach", "detach", tooltip="leave; the run goes on"),
    Binding("y", "log_axis", "log axis", show=False, tooltip="logarithmic axis"),
    Binding("s", "smooth", "smooth", show=False, tooltip="curves smoothed, or as measured"),
    Binding(
        "v",
        "figure",
        "figure",
        show=False,
        tooltip="curves of loss, learning rate, gradient norm, phi, mode",
    ),
    Binding("t", "time_axis", "time", show=False, tooltip="curves over time, or over steps"),
    Binding(
        "b",
        "order",
        "order",
        show=False,
        tooltip="sorted by name, state, loss, held-out, eta, as in config",
    ),
    Binding("escape", "clear_filter", "all streams", show=False),
    Binding("ctrl+c", "stop_run", "stop the run", show=False, priority=True, tooltip="stop the whole run (asks)"),
    Binding("ctrl+z", "suspend_process", "suspend", show=False),
)
DISPLAYED = {"slash": "/", "colon": ":", "question_mark": "?", "enter": "↵"}
"""How keys are written whose names are words."""


def offered(*, readonly: bool) -> list[Binding]:
    return [binding for binding in BINDINGS if binding.tooltip and not (readonly and binding.action in ACTS)]


def every_key(*, readonly: bool) -> list[tuple[str, str]]:
    """Each key that is offered, with its meaning."""
    meanings = ((DISPLAYED.get(one.key, one.key), one.tooltip) for one in offered(readonly=readonly))
    return [("↑ ↓ j k g G", "select a stream"), *meanings]
