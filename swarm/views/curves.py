"""One stream's figures by step, kept sorted and thin as they arrive, so that a picture costs nothing per step; pure.

A step that is trained again replaces what an earlier lease measured from there on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from swarm.messages import MetricRow, Metrics

CURVE_POINTS = 400
PACE_ROWS = 20
"""Of so many last rows the pace is taken."""

Point = tuple[int, float]


class Curve:
    """The points of one figure, oldest step first."""

    def __init__(self) -> None:
        self._begin(())

    def _begin(self, points: Sequence[Point]) -> None:
        self.points: list[Point] = []
        self.lowest: float | None = None
        self._kept: list[Point] = []
        self._stride = 1
        """Every so many points one is kept."""
        self._shown: tuple[Point, ...] | None = None
        for point in points:
            self._append(point)

    def add(self, step: int, value: float) -> None:
        """A point; at a step that is known the newer one counts."""
        if self.points and step <= self.points[-1][0]:
            at = bisect_left(self.points, step, key=lambda point: point[0])
            same = self.points[at][0] == step
            self._begin([*self.points[:at], (step, value), *self.points[at + same :]])
        else:
            self._append((step, value))

    def cut(self, step: int, until: float) -> None:
        """Forget the points from `step` on, up to those of `until`."""
        if self.points and self.points[-1][0] >= step:
            self._begin([point for point in self.points if not step <= point[0] < until])

    def _append(self, point: Point) -> None:
        if len(self.points) % self._stride == 0:
            self._kept.append(point)
            if len(self._kept) > CURVE_POINTS:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self.points.append(point)
        self.lowest = point[1] if self.lowest is None else min(self.lowest, point[1])
        self._shown = None

    def thin(self) -> tuple[Point, ...]:
        """At most `CURVE_POINTS` and one of the points, evenly, always with the last; the same tuple until one is added."""
        if self._shown is None:
            last = self.points[-1:]
            self._shown = tuple(self._kept if self._kept[-1:] == last else [*self._kept, *last])
        return self._shown


class Curves:
    """One stream's figures by step."""

    def __init__(self) -> None:
        self.steps = 0
        """Planned optimizer steps; 0 while unknown."""
        self.figures: dict[str, Curve] = {}
        self.last: MetricRow | None = None
        """The newest row of the training."""
        self._recent: deque[MetricRow] = deque(maxlen=PACE_ROWS)
        self._first_steps: dict[int, int] = {}
        """Of each lease that reported, by its token."""

    def of(self, name: str) -> Curve:
        """An empty one where the figure was never measured."""
        return self.figures.get(name) or Curve()

    def add(self, table: Metrics) -> None:
        self.steps = table.steps or self.steps
        for row in table.rows:
            if self._is_of_now(table.token, row.step):
                self._add(row)

    def _is_of_now(self, token: int, step: int) -> bool:
        """False for what a newer lease has trained again; with its first row a lease takes the place of the older ones."""
        newer = min((first for other, first in self._first_steps.items() if other > token), default=math.inf)
        if newer <= step:
            return False
        if token not in self._first_steps:
            if any(other < token for other in self._first_steps):
                self._cut(step, newer)
            self._first_steps[token] = step
        return True

    def _cut(self, step: int, until: float) -> None:
        for curve in self.figures.values():
            curve.cut(step, until)
        if self.last and self.last.step < until:
            self._recent.clear()
            self.last = None

    def _add(self, row: MetricRow) -> None:
        for name, value in row.figures.items():
            self.figures.setdefault(name, Curve()).add(row.step, value)
        if row.kind == "train" and (self.last is None or row.step >= self.last.step):
            self.last = row
            self._recent.append(row)

    def seconds_per_step(self, since: float = 0.0) -> float | None:
        """The pace of the last steps that were measured after `since`: a pause before it does not count."""
        recent = [row for row in self._recent if row.time >= since]
        if len(recent) < 2:
            return None
        first, last = recent[0], recent[-1]
        return (last.time - first.time) / max(1, last.step - first.step)
