"""The top line with the run, its streams, bus and log; and the banner under it for what a person must know."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from swarm import units
from swarm.views.snapshot import BusCounters, Snapshot
from tui import looks
from tui.panes.line import Line, Part
from tui.panes.pane import Pane
from tui.view import View

BANNER_LINES, WORD_CELLS = 3, 20
"""Lines that the banner may take, and the cells that breaking between words may leave empty in them."""


class Header(Line, Pane):
    """The top line."""

    def show(self, view: View) -> None:
        self.show_parts(parts(view))


def parts(view: View) -> list[Part]:
    snapshot = view.snapshot
    known = snapshot.elapsed_seconds is not None
    is_expected = snapshot.state == "running" and snapshot.eta_seconds is not None
    log_style = looks.GOOD if snapshot.log_ok else looks.BAD
    log = Text.assemble(("log ", looks.DIM), str(snapshot.seq), (" ok" if snapshot.log_ok else " BROKEN", log_style))
    return [
        Part(Text(" toonswarm", style="bold #73d0ff"), rank=4),
        Part(Text((" " if snapshot.run else "") + (snapshot.run or "no run yet"), style=looks.STRONG)),
        Part(states(view)),
        Part(Text(snapshot.devices, style=looks.DIM), rank=7),
        Part(Text(units.duration(snapshot.elapsed_seconds) if known else "", style=looks.DIM), rank=2),
        *([Part(Text(f"eta {units.duration(snapshot.eta_seconds)}"), rank=1)] if is_expected else []),
        *([Part(Text(f"budget {snapshot.budget}", style=looks.DIM), rank=3)] if snapshot.budget else []),
        Part(
            Text.assemble(("bus ", looks.DIM), f"{units.count(snapshot.bus.messages_per_second)}/s"), rank=5, right=True
        ),
        Part(losses(snapshot.bus), rank=1 if snapshot.bus.gaps or snapshot.bus.dropped else 6, right=True),
        Part(Text.assemble(log, " "), rank=3 if snapshot.log_ok else 1, right=True),
    ]


def states(view: View) -> Text:
    """`4 streams · 3 train 1 validate`."""
    n = len(view.snapshot.streams)
    text = Text(f"{n} stream{'' if n == 1 else 's'}")
    for i, (state, count) in enumerate(view.counts):
        text.append(" · " if i == 0 else " ", looks.DIM)
        text.append(f"{count} {state}", looks.STATES.get(state, ""))
    return text


def losses(bus: BusCounters) -> Text:
    """Lost messages; shown also if there are none, so that a person can see the zero."""
    parts = [(f"{name} ", value) for name, value in (("gap", bus.gaps), ("drop", bus.dropped))]
    return Text(" ").join(
        Text.assemble((name, looks.DIM), (units.count(value), looks.BAD if value else "")) for name, value in parts
    )


class Banner(Static, Pane):
    """One or two lines while the run waits, has ended, or has no coordinator."""

    def show(self, view: View) -> None:
        text = advice(view)
        self.set_class(text is not None, "-shown")
        if text is not None:
            text.truncate(max(20, BANNER_LINES * (self.app.size.width - 2) - WORD_CELLS), overflow="ellipsis")
            self.update(text)


def advice(view: View) -> Text | None:
    """What a person must know about the run as a whole."""
    snapshot = view.snapshot
    if not snapshot.log_ok:
        return Text("the log does not verify: `swarm log verify` names the entry", style=looks.BAD)
    match snapshot.state:
        case "no coordinator":
            return without_coordinator(snapshot)
        case "ended":
            return ending(snapshot)
        case "starting":
            return Text("starting: workers are coming up", style=looks.DIM)
        case "not started":
            run = Text.assemble(("swarm run CONFIG --in ", "bold"), (snapshot.run, "bold"))
            return Text("a log to plan in; ").append(run).append(" starts a run in it")
        case _ if snapshot.waits:
            return Text.assemble(("waiting", looks.WARN), f": {snapshot.waits}")
        case _:
            return None


def without_coordinator(snapshot: Snapshot) -> Text:
    """Workers outlive a coordinator that was killed and train on; the next one adopts them."""
    count = sum(row.state == "orphan" for row in snapshot.workers)
    if count:
        workers = f"{count} worker{'s train' if count > 1 else ' trains'} on; "
        fix = Text.assemble(("swarm resume", "bold"), f" adopts {'them' if count > 1 else 'it'}")
    else:
        workers = "nothing runs; "
        fix = Text.assemble(("swarm resume", "bold"), " goes on from the newest checkpoints")
    age = f" · nothing recorded for {units.duration(snapshot.silent_seconds)}: "
    return Text.assemble(("no coordinator", looks.BAD), age, workers, fix)


def ending(snapshot: Snapshot) -> Text:
    good = snapshot.rc in (0, None)
    text = Text.assemble(("ended", looks.GOOD if good else looks.BAD))
    if snapshot.rc is not None and not good:
        text.append(f" with exit status {snapshot.rc}", looks.BAD)
    if snapshot.promoted:
        text.append(f" · ★ {snapshot.promoted} promoted", "bold #ffd173")
    if snapshot.why:
        text.append(f": {snapshot.why}" if snapshot.promoted else f" · {snapshot.why}")
    return text
