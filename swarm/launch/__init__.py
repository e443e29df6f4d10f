"""Engines that start worker processes: `local` on this machine; others will stand beside it."""
