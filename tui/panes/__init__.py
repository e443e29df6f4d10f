"""The parts of the screen, one per file: each draws a `View` and decides nothing."""
