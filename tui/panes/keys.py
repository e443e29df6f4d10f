"""The last line: the keys that have an effect now; a click on one presses it.  In a narrow window the least needed are left out."""

from __future__ import annotations

from collections.abc import Container, Iterable

from rich.style import Style
from rich.text import Text
from textual.binding import ActiveBinding, Binding

from tui import looks
from tui.bindings import DISPLAYED
from tui.panes.line import Line, Part

RANKS = {
    "keys": 0,
    "detach": 0,
    "back": 0,
    "approve": 1,
    "retry": 1,
    "stop": 1,
    "pause": 2,
    "log": 3,
    "detail": 4,
    "filter": 5,
    "mark": 6,
    "clone": 7,
    "new": 8,
    "workers": 9,
    "leaders": 10,
    "note": 11,
    "palette": 12,
}
"""Rank by the binding's description; keys without one are left out first."""


class Keys(Line):
    """The keys of the screen."""

    def show_bindings(self, bindings: Iterable[ActiveBinding], without: Container[str] = ()) -> None:
        by_action = {
            active.binding.action: active.binding for active in bindings if active.binding.show and active.enabled
        }
        shown = [binding for action, binding in by_action.items() if action not in without]
        self.show_parts(
            [Part(Text(" "))] + [Part(hint(b), RANKS.get(b.description.split("/")[0], len(RANKS))) for b in shown]
        )


def hint(binding: Binding) -> Text:
    """`p pause`, clickable."""
    key = binding.key_display or DISPLAYED.get(binding.key, binding.key)
    clickable = Style.from_meta({"@click": f"app.simulate_key('{binding.key}')"})
    text = Text.assemble((key, "bold #ffad66"), " ", (binding.description, looks.DIM))
    text.stylize(clickable)
    return text
