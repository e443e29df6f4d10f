"""One stream's figures by step, kept sorted and thinned as they arrive, so that making a snapshot costs nothing per step; pure.

After a retry or a rollback, the rows of the new lease replace the rows of earlier leases from its first step on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from swarm.messages import MetricRow, Metrics

CURVE_POINTS = 400
PACE_ROWS = 20
"""The seconds per step are the mean over this many of the newest rows."""

Point = tuple[int, float]


class Curve:
    """The points of one figure in the order of the steps."""

    def __init__(self) -> None:
        self._begin(())

    def _begin(self, points: Sequence[Point]) -> None:
        self.points: list[Point] = []
        self.lowest: float | None = None
        self._kept: list[Point] = []
        self._stride = 1
        """One point in `_stride` is kept in the thinned curve."""
        self._shown: tuple[Point, ...] | None = None
        for point in points:
            self._append(point)

    def add(self, step: int, value: float) -> None:
        """Add a point; it replaces the point of the same step."""
        if self.points and step <= self.points[-1][0]:
            at = bisect_left(self.points, step, key=lambda point: point[0])
            same = self.points[at][0] == step
            self._begin([*self.points[:at], (step, value), *self.points[at + same :]])
        else:
            self._append((step, value))

    def cut(self, step: int, until: float) -> None:
        """Remove the points with step <= their step < until."""
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
        """At most `CURVE_POINTS` + 1 points at even distances, the last always among them; the same tuple until a point is added."""
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
        self.times = Curve()
        """Seconds since the first step, by step."""
        self._began: float | None = None
        self.last: MetricRow | None = None
        """The newest row of the training."""
        self._recent: deque[MetricRow] = deque(maxlen=PACE_ROWS)
        self._first_steps: dict[int, int] = {}
        """The first step that each lease reported, by fencing token."""

    def of(self, name: str) -> Curve:
        """The curve of a figure; an empty one if it was never measured."""
        return self.figures.get(name) or Curve()

    def add(self, table: Metrics) -> None:
        self.steps = table.steps or self.steps
        for row in table.rows:
            if self._is_of_now(table.token, row.step):
                self._add(row)

    def _is_of_now(self, token: int, step: int) -> bool:
        """False for a row of a step that a newer lease has trained again.

        The first row of a lease removes the rows of older leases from its step on.
        """
        newer = min((first for other, first in self._first_steps.items() if other > token), default=math.inf)
        if newer <= step:
            return False
        if token not in self._first_steps:
            if any(other < token for other in self._first_steps):
                self._cut(step, newer)
            self._first_steps[token] = step
        return True

    def _cut(self, step: int, until: float) -> None:
        for curve in (*self.figures.values(), self.times):
            curve.cut(step, until)
        if self.last and self.last.step < until:
            self._recent.clear()
            self.last = None

    def _add(self, row: MetricRow) -> None:
        for name, value in row.figures.items():
            self.figures.setdefault(name, Curve()).add(row.step, value)
        if row.kind == "train":
            self._began = row.time if self._began is None else self._began
            self.times.add(row.step, row.time - self._began)
        if row.kind == "train" and (self.last is None or row.step >= self.last.step):
            self.last = row
            self._recent.append(row)

    def seconds_per_step(self, since: float = 0.0) -> float | None:
        """The mean over the newest steps measured after `since`, so that a pause before it does not count; None below two rows."""
        recent = [row for row in self._recent if row.time >= since]
        if len(recent) < 2:
            return None
        first, last = recent[0], recent[-1]
        return (last.time - first.time) / max(1, last.step - first.step)
