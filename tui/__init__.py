"""The dashboard: shows a run and acts on it through the log; the only package that imports textual."""
