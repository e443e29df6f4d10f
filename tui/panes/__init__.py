"""The panes of the dashboard, one per file; each draws a `View`."""
