"""Starts worker processes: `local` on this machine; `layout` lists them."""
