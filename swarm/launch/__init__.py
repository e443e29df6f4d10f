"""Starts worker processes: `local` on this machine; `layout` says which ones."""
