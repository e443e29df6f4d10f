"""The dashboard: holds one `View`, gives each new one to the panes, and turns keys into events of the run.

It opens no socket and reads no file: the feed does.  Whether an event is allowed is decided by the coordinator, whose refusal is shown.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import App, ComposeResult, SuspendNotSupported, SystemCommand
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import Input

from swarm.printable import one_line
from tui import asciiscreen, looks
from tui.bindings import ACTS, BINDINGS, every_key, offered
from tui.feed import PERIOD_SECONDS, Arrived, Feed, LogRead, Lost, Recorded, Refused, Source
from tui.panes import PANES, Area
from tui.panes.curves import Curves
from tui.panes.keys import Keys
from tui.panes.pane import Pane
from tui.panes.streams import Streams
from tui.screens import DetailScreen, KeysScreen, LiveScreen, LogScreen, Prompt, Question
from tui.view import HELD, ORDERS, OVER, View, after

ROOM_FOR_WORKERS = 140
"""From this width on the pane of workers is shown by default."""
DETACHED, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses."""
AGAIN = frozenset({"failed", "stopped"})
"""States in which `r` resumes a stream."""


class Dashboard(App[None]):
    """The screen of one run."""

    CSS = looks.CSS
    TITLE = "toonswarm"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (ROOM_FOR_WORKERS, "-wide")]  # noqa: RUF012 (an instance variable in Textual)
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (20, "-short"), (27, "-middling"), (40, "-tall")]  # noqa: RUF012 (an instance variable in Textual)
    BINDINGS: ClassVar[list[BindingType]] = [*BINDINGS]

    def __init__(
        self,
        source: Source,
        *,
        readonly: bool = False,
        only_ascii: bool = False,
        period_seconds: float = PERIOD_SECONDS,
    ) -> None:
        super().__init__()
        self.feed = Feed(source, self.post_message, period_seconds)
        self.readonly = readonly
        self.only_ascii = only_ascii
        self.is_leaving = False
        self.view = View()
        self.panes: list[Pane] = []
        self.drafts: dict[tuple[str, bool], str] = {}
        """Lines typed for streams that are to join, until one has."""
        self.pictures = 0
        """How many snapshots were drawn."""
        self.register_theme(looks.THEME)
        self.theme = looks.THEME.name

    def compose(self) -> ComposeResult:
        yield from self.panes_of("top")
        yield Input(id="filter", placeholder="words: a name, a worker, a device; state:train, why:memory", compact=True)
        with Horizontal(id="middle"):
            yield from self.panes_of("middle")
        with Horizontal(id="bottom"):
            yield from self.panes_of("bottom")
        yield Keys(id="keys")

    def panes_of(self, area: Area) -> list[Pane]:
        """New panes for one area of the screen."""
        framed = "" if area == "top" else "pane"
        made = [pane(id=name, classes=framed) for place, name, pane in PANES if place == area]
        self.panes += made
        return made

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = super().get_line_filters()
        return [*filters, asciiscreen.AsciiFilter()] if self.only_ascii else filters

    def on_mount(self) -> None:
        self.main = self.screen
        self.query_one(Streams).focus()
        self.main.set_class(self.size.width >= ROOM_FOR_WORKERS, "-workers")
        self.keys_shown_for: tuple[object, ...] | None = None
        self.show_keys()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.leave, DETACHED)
        self.feed.start()

    def on_unmount(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        self.feed.stop()

    # ---- pictures

    def on_arrived(self, event: Arrived) -> None:
        self.pictures += 1
        self.look(replace(self.view, snapshot=event.snapshot))

    def look(self, view: View) -> None:
        """Draw this view in all panes and open screens."""
        self.view = view = view.pinned()
        if not all(pane.is_attached for pane in self.panes):
            return  # a late snapshot: the screen is being closed
        with self.batch_update():
            self.show_keys()
            for pane in self.panes:
                pane.show(view)
            for screen in self.screen_stack:
                if isinstance(screen, LiveScreen) and screen.is_mounted:
                    screen.show(view)

    def show_keys(self) -> None:
        """Show the keys that have an effect now."""
        now = (self.view.row and self.view.row.state, bool(self.view.snapshot.waits))
        if now != self.keys_shown_for:
            self.keys_shown_for = now
            idle = () if self.view.row and self.view.row.state not in OVER else ("pause", "stop")
            self.main.query_one(Keys).show_bindings(self.main.active_bindings.values(), without=idle)

    def on_lost(self, event: Lost) -> None:
        self.exit(return_code=FAILED, message=f"tui: the run can no longer be watched: {one_line(event.why)}")

    def on_table_moved(self, event: Streams.Moved) -> None:
        self.look(replace(self.view, selected=event.key))

    def on_table_chosen(self, event: Streams.Chosen) -> None:
        self.action_detail()

    # ---- looking

    def action_detail(self) -> None:
        if self.view.row:
            self.push_screen(DetailScreen(self.view))

    def action_log(self) -> None:
        self.push_screen(LogScreen(self.view))

    def action_keys(self) -> None:
        self.push_screen(KeysScreen(every_key(readonly=self.readonly)))

    def action_mark(self) -> None:
        if row := self.view.row:
            self.look(self.view.toggled(row.name))

    def action_log_axis(self) -> None:
        drawn = self.main.query_one(Curves).is_log
        self.look(replace(self.view, log_y=not drawn))

    def action_smooth(self) -> None:
        self.look(replace(self.view, smoothed=not self.view.smoothed))

    def action_figure(self) -> None:
        self.look(replace(self.view, figure=after(self.view.drawable, self.view.figure)))

    def action_time_axis(self) -> None:
        self.look(replace(self.view, by_time=not self.view.by_time))

    def action_order(self) -> None:
        self.look(replace(self.view, order=after(ORDERS, self.view.order), selected=""))  # the first of the new order
        self.notify(f"streams by {self.view.order}", timeout=2, markup=False)

    def action_workers(self, by_device: bool) -> None:
        """Show the workers; the same key again hides them, the other key changes their order."""
        same = self.view.by_device == by_device
        self.main.set_class(not (same and self.main.has_class("-workers")), "-workers")
        self.look(replace(self.view, by_device=by_device))

    def action_leaders(self) -> None:
        self.look(replace(self.view, leaders=not self.view.shows_leaders))

    def action_filter(self) -> None:
        box = self.main.query_one("#filter", Input)
        box.add_class("-shown")
        box.focus()

    def action_clear_filter(self) -> None:
        self.main.query_one("#filter", Input).value = ""
        self.close_filter()

    def close_filter(self) -> None:
        box = self.main.query_one("#filter", Input)
        box.set_class(bool(box.value.strip()), "-shown")
        self.main.query_one(Streams).focus()

    @on(Input.Changed, "#filter")
    def words_changed(self, event: Input.Changed) -> None:
        self.look(replace(self.view, words=event.value.strip()))

    @on(Input.Submitted, "#filter")
    def words_given(self, event: Input.Submitted) -> None:
        self.close_filter()

    def on_log_screen_wanted(self, event: LogScreen.Wanted) -> None:
        self.feed.read_log(event.stream)

    def on_log_read(self, event: LogRead) -> None:
        if isinstance(self.screen, LogScreen):
            self.screen.show_log(event.lines, event.stream)

    # ---- acting

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if self.is_leaving:
            return False
        row = self.view.row
        match action:
            case "retry":  # only where it has an effect: the line of keys is short
                return not self.readonly and row is not None and row.state in AGAIN
            case "approve":
                return not self.readonly and bool(self.view.snapshot.waits)
            case "stop_run":
                return True  # with --readonly it detaches
            case _:
                return not (self.readonly and action in ACTS)

    def action_retry(self) -> None:
        """Resume a stream that failed or was stopped."""
        if row := self.view.row:
            self.feed.say("resume", row.name)

    def action_approve(self) -> None:
        """Approve the promotion that waits, after a question; the coordinator refuses those who may not."""
        stream = self.view.snapshot.waits.partition(": ")[0]
        text = Text.assemble("Approve the promotion of ", (stream, "bold"), "?")
        self.ask(Question(stream, text, self.view.snapshot.waits.partition(": ")[2]), "approve", stream)

    def action_pause(self) -> None:
        """Pause the selected stream, or resume it."""
        row = self.view.row
        if row is None or row.state in OVER:
            self.say_no(f"{row.name} is {row.state}: nothing to pause" if row else "no stream is selected")
        else:
            self.feed.say("resume" if row.state in HELD or row.wish == "pause" else "pause", row.name)

    def action_stop(self) -> None:
        row = self.view.row
        if row is None or row.state in OVER | {"stopped"}:
            self.say_no(f"{row.name} is {row.state}: nothing to stop" if row else "no stream is selected")
            return
        name = row.name
        question = Text.assemble("Stop ", (name, "bold"), f" at step {row.step}?")
        consequence = "It saves a checkpoint and ends; the other streams go on."
        self.ask(Question(name, question, consequence), "stop", name)

    def action_note(self) -> None:
        ref = row.name if (row := self.view.row) else "run"
        hint = "It goes into the log, for everybody. enter: post   escape: back"
        self.push_screen(
            Prompt(f"note on {ref}", hint), lambda text: self.feed.say("post", ref, body=text) if text else None
        )

    def action_clone(self) -> None:
        self.prompt_for_stream(warm=True)

    def action_new(self) -> None:
        self.prompt_for_stream(warm=False)

    def prompt_for_stream(self, *, warm: bool) -> None:
        """Ask for the name of a stream that is to join and for what differs; a refused line is offered again."""
        row = self.view.row
        if row is None:
            self.say_no("no stream is selected")
            return
        like = row.name
        title = f"clone {like}: its weights and moments" if warm else f"a new stream like {like}, from step 0"
        hint = "NAME key=value ... -- why, such as lora_r=16 or learning_rate=1e-4   enter: add   escape: back"
        typed = self.drafts.get((like, warm)) or f"{self.view.free_name(like)} "

        def answered(words: str | None) -> None:
            if words:
                self.drafts[like, warm] = words
                self.feed.add(like, words, warm=warm)

        self.push_screen(Prompt(title, hint, typed), answered)

    def action_stop_run(self) -> None:
        """Ctrl-C asks whether to stop the run; a second Ctrl-C means yes; with --readonly or after the end it detaches."""
        screen: object = self.screen
        match screen:
            case Question(about="run") as question:
                question.dismiss(True)
            case _ if self.readonly or self.view.snapshot.state == "ended":
                self.leave(DETACHED)
            case _:
                text = Text.assemble("Stop the ", ("whole run", "bold"), "?")
                consequence = "Every stream saves a checkpoint; `swarm resume` goes on from there. q only leaves."
                self.ask(Question("run", text, consequence), "stop", "run")

    def ask(self, question: Question, kind: str, ref: str) -> None:
        """Append the event if the answer is yes; `ref` is the one selected when the question was asked."""
        self.push_screen(question, lambda yes: self.feed.say(kind, ref) if yes else None)

    def on_recorded(self, event: Recorded) -> None:
        if (event.kind, event.ref) == ("stop", "run"):
            self.leave(INTERRUPTED)
        if event.kind == "add":
            self.drafts.clear()
        self.notify(event.line, markup=False)

    def on_refused(self, event: Refused) -> None:
        self.notify(one_line(event.why), title=f"{event.what}: refused", severity="error", timeout=10, markup=False)

    def say_no(self, why: str) -> None:
        self.notify(why, severity="warning", markup=False)

    # ---- leaving

    def action_detach(self) -> None:
        self.leave(DETACHED)

    async def action_quit(self) -> None:
        self.leave(DETACHED)

    def leave(self, status: int) -> None:
        """Close the dashboard once; keys typed ahead are ignored from here on."""
        if not self.is_leaving:
            self.is_leaving = True
            self.exit(return_code=status)

    async def on_event(self, event: events.Event) -> None:
        if not (self.is_leaving and isinstance(event, events.InputEvent)):
            await super().on_event(event)

    def action_suspend_process(self) -> None:
        """Ctrl-Z suspends the whole process group, `swarm run` too, so that the shell gets the terminal; `fg` resumes both."""
        try:
            with self.suspend():
                os.killpg(os.getpgrp(), signal.SIGSTOP)
        except SuspendNotSupported:
            pass

    # ---- the palette

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for key in offered(readonly=self.readonly):
            if key.action != "command_palette" and self.check_action(key.action, ()):
                yield SystemCommand(key.description, key.tooltip, partial(self.run_action, key.action))
        yield SystemCommand("theme", "other colours", self.action_change_theme)
        for other in self.view.snapshot.streams:
            yield SystemCommand(f"go to {other.name}", other.state, partial(self.go, other.name), discover=False)

    def go(self, name: str) -> None:
        self.look(replace(self.view, selected=name))
