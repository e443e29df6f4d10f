"""The screens over the dashboard: a question, a note, the keys, one stream, the whole log; none of them appends events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table as Grid
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tui import looks
from tui.panes.curves import Curves
from tui.panes.detail import Detail
from tui.panes.keys import Keys
from tui.panes.log import Lines
from tui.view import View


class Question(ModalScreen[bool]):
    """Yes or no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes"),
        Binding("n,escape,q", "dismiss(False)", "no"),
    ]

    def __init__(self, about: str, question: Text, consequence: str) -> None:
        super().__init__()
        self.about = about
        self.question = question
        self.consequence = consequence

    def compose(self) -> ComposeResult:
        answers = Text.assemble(("y", "bold #ffad66"), " yes   ", ("n", "bold #ffad66"), " no")
        text = Text("\n").join([self.question, Text(self.consequence, style=looks.DIM), Text(""), answers])
        yield Static(text, classes="box")


class Prompt(ModalScreen[str]):
    """A line of text; empty if the person cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss('')", "back")]

    def __init__(self, title: str, hint: str, typed: str = "") -> None:
        super().__init__()
        self.heading, self.hint, self.typed = title, hint, typed

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = Text(self.heading)
            yield Static(Text(self.hint, style=looks.DIM))
            yield Input(self.typed, max_length=2000, select_on_focus=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())


class KeysScreen(ModalScreen[None]):
    """Every key with what it does."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss", "back")]

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.keys = keys

    def compose(self) -> ComposeResult:
        grid = Grid.grid(padding=(0, 3, 0, 0))
        for key, meaning in self.keys:
            grid.add_row(Text(key, style="bold #ffad66"), Text(meaning))
        with VerticalScroll(classes="box") as box:
            yield Static(grid)
        box.border_title = "keys"


class LiveScreen(ModalScreen[None]):
    """A full screen that follows the run."""

    def show(self, view: View) -> None:
        raise NotImplementedError

    def on_mount(self) -> None:
        self.query_one(Keys).show_bindings(self.active_bindings.values())


class DetailScreen(LiveScreen):
    """One stream at full size."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter", "dismiss", "back", key_display="esc")]

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def compose(self) -> ComposeResult:
        yield Detail(id="facts", classes="pane")
        yield Curves(id="curve", classes="pane")
        yield Keys(id="keys")

    def on_mount(self) -> None:
        super().on_mount()
        self.call_after_refresh(lambda: self.show(self.view))

    def show(self, view: View) -> None:
        self.view = view
        self.query_one(Detail).show(view)
        self.query_one(Curves).show_only(view, (view.row,) if view.row else ())


class LogScreen(LiveScreen):
    """The whole log, of the run or of one stream, with a filter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter"),
        Binding("f", "narrow", "this stream/all"),
        Binding("g", "scroll('home')", "first"),
        Binding("G", "scroll('end')", "last"),
        Binding("escape,q,l", "back", "back", key_display="esc"),
    ]

    class Wanted(Message):
        """A request to read the log (again)."""

        def __init__(self, stream: str | None) -> None:
            super().__init__()
            self.stream = stream

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.stream: str | None = None
        self.entries: list[str] = []
        self.seq = -1

    def compose(self) -> ComposeResult:
        yield Lines(id="whole", classes="pane")
        yield Input(id="filter", placeholder="words that a line must hold")
        yield Keys(id="keys")

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Lines).focus()
        self.show(self.view)

    def show(self, view: View) -> None:
        """Ask for the log again if it has grown."""
        self.view = view
        if view.snapshot.seq != self.seq:
            self.seq = view.snapshot.seq
            self.app.post_message(self.Wanted(self.stream))

    def show_log(self, entries: list[str], stream: str | None) -> None:
        if stream == self.stream:
            self.entries = entries
            self.redraw()

    def redraw(self) -> None:
        words = self.query_one(Input).value.lower().split()
        found = [entry for entry in self.entries if all(word in entry.lower() for word in words)]
        lines = self.query_one(Lines)
        lines.border_title = Text(f"log of {self.stream}" if self.stream else "log")
        lines.border_subtitle = f"{len(found)} of {len(self.entries)}" if words else f"{len(found)} entries"
        lines.show_lines(found)

    def action_narrow(self) -> None:
        row = self.view.row
        self.stream = row.name if self.stream is None and row else None
        self.app.post_message(self.Wanted(self.stream))

    def action_filter(self) -> None:
        box = self.query_one(Input)
        box.add_class("-shown")
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.redraw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        event.input.set_class(bool(event.value.strip()), "-shown")
        self.query_one(Lines).focus()

    def action_scroll(self, where: str) -> None:
        lines = self.query_one(Lines)
        lines.scroll_to(y=0 if where == "home" else lines.max_scroll_y, animate=False)

    def action_back(self) -> None:
        """Close the filter if it is open, else the log."""
        box = self.query_one(Input)
        if box.has_class("-shown"):
            box.value = ""
            box.remove_class("-shown")
            self.query_one(Lines).focus()
        else:
            self.dismiss()
