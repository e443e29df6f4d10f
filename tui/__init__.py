"""The dashboard: shows a run and acts on it through the log; textual lives here only."""
