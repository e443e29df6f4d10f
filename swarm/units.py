"""How numbers look on any screen: the only place that makes them pretty; pure, and it knows nothing of Textual.

Every function is total: None is `-`, and what is not finite says so.  Widths are stated where columns rely on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

NONE = "-"
RAMP = "▁▂▃▄▅▆▇"
"""Never the full block: the rows of a table would grow together."""


def count(number: float | None) -> str:
    """At most five characters: 72, 3.1k, 120k, 1.3M."""
    if number is None:
        return NONE
    if not math.isfinite(number):
        return str(number)
    for limit, divisor, letter in ((999.5, 1, ""), (999.5e3, 1e3, "k"), (999.5e6, 1e6, "M"), (999.5e9, 1e9, "G")):
        if abs(number) < limit:
            return _three_digits(number / divisor, whole=divisor == 1) + letter
    return f"{number / 1e12:.3g}T"


def _three_digits(value: float, *, whole: bool) -> str:
    return f"{value:.0f}" if whole or abs(value) >= 99.95 else f"{value:.1f}"


def number(value: float | None) -> str:
    """Four digits that count: 0.4125, 1.3e+06, nan."""
    return NONE if value is None else f"{value:.4g}"


def size(number_bytes: float | None) -> str:
    """Decimal, as disks and `memory` columns are sold: 412 MB, 1.9 GB."""
    if number_bytes is None:
        return NONE
    for limit, divisor, unit in ((999.5, 1.0, "B"), (999.5e3, 1e3, "kB"), (999.5e6, 1e6, "MB")):
        if abs(number_bytes) < limit:
            return f"{number_bytes / divisor:.0f} {unit}"
    return f"{number_bytes / 1e9:.1f} GB" if abs(number_bytes) < 999.5e9 else f"{number_bytes / 1e12:.1f} TB"


def duration(seconds: float | None) -> str:
    """At most five characters: 14s, 3m12, 2h05, 3d04."""
    if seconds is None:
        return NONE
    if not math.isfinite(seconds):
        return str(seconds)
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}"


def loss(value: float | None) -> str:
    """At most five characters at any size a loss has: 0.412, 12.31, 4e-04, nan."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return str(value)
    if value != 0 and abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 100 else f"{value:.4g}"


def signed(value: float | None) -> str:
    """A difference, with a real minus: −1.59, +0.02."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:+.2f}".replace("-", "−")


def rate(value: float | None) -> str:
    """A learning rate in six characters: 1.2e-3, 2.0e-4."""
    if value is None:
        return NONE
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def percent(share: float | None) -> str:
    return NONE if share is None or not math.isfinite(share) else f"{share * 100:.0f}%"


def share(done: int, of: int) -> float:
    """0..1, also when the plan is unknown or was exceeded."""
    return min(1.0, max(0.0, done / of)) if of > 0 else 0.0


def bar(done: float, width: int) -> tuple[str, str]:
    """What is done, in halves of a cell, and what is left; together `width` characters, told apart without colours too."""
    halves = round(min(1.0, max(0.0, done)) * width * 2)
    filled = "━" * (halves // 2) + "╸" * (halves % 2)
    return filled, "─" * (width - len(filled))


def spark(values: Sequence[float], width: int) -> str:
    """The shape of a series in `width` characters: means of equal stretches, logarithmic where all are positive."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width <= 0:
        return ""
    if min(finite) > 0:
        finite = [math.log(value) for value in finite]
    means = stretches(finite, min(width, len(finite)))
    low, span = min(means), max(means) - min(means)
    if span <= 1e-12:
        return RAMP[2] * len(means)
    return "".join(RAMP[min(6, int((mean - low) / span * 7))] for mean in means)


def stretches(values: Sequence[float], n: int) -> list[float]:
    """Means of `n` equal stretches; the newest value always counts."""
    edges = [round(i * len(values) / n) for i in range(n + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges) if b > a]


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """An exponential mean without the bias of its start (as TensorBoard draws it); values that are not finite pass by."""
    mean, mass, out = 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            mean, mass = weight * mean + (1 - weight) * value, weight * mass + (1 - weight)
        out.append(mean / mass if mass else value)
    return out
