"""What every pane is: a widget that draws a `View`."""

from __future__ import annotations

from textual.widget import Widget

from tui.view import View


class Pane(Widget):
    """A part of the dashboard's main screen."""

    def show(self, view: View) -> None:
        """Draw this view; called several times a second, also where nothing has changed."""
        raise NotImplementedError
