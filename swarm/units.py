"""Numbers for people: the only place that makes them pretty."""

from __future__ import annotations


def count(value: float | None) -> str:
    """3072 -> 3.1k"""
    if value is None:
        return "-"
    for limit, mark in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.1f}{mark}"
    return f"{value:.0f}"


def size(value_bytes: float | None) -> str:
    """431_000_000 -> 431 MB"""
    if value_bytes is None:
        return "-"
    for limit, mark in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value_bytes) >= limit:
            number = value_bytes / limit
            return f"{number:.1f} {mark}" if number < 10 and limit >= 1e9 else f"{number:.0f} {mark}"
    return f"{value_bytes:.0f} B"


def seconds(value: float | None) -> str:
    """135 -> 2 min 15 s"""
    if value is None:
        return "-"
    whole = round(value)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60} s"
    return f"{value:.1f} s" if value < 10 else f"{whole} s"


def loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """0.913 -> 91 %"""
    return "-" if value is None else f"{value * 100:.0f} %"


def signed(value: float) -> str:
    """With a real minus sign: -1.92 -> −1.92"""
    return f"{value:+.2f}".replace("-", "−")


def sparkline(values: tuple[float, ...], width: int = 8) -> str:
    """The last values as bars of one line, scaled between their smallest and largest."""
    if not values:
        return ""
    stride = max(1, len(values) // width)
    picked = values[::-stride][:width][::-1]
    low, high = min(picked), max(picked)
    bars = "▁▂▃▄▅▆▇█"
    return "".join(bars[round((value - low) / (high - low) * 7) if high > low else 0] for value in picked)
