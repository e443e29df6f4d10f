"""Progress as plain lines, for pipes, logs and `--plain`; a line is printed only when something changed."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from swarm import figures, units
from swarm.plainfiles import read_text

if TYPE_CHECKING:
    from swarm.rundir import RunFolder
    from swarm.views.snapshot import Snapshot, StreamRow
    from swarm.views.watch import Watcher

LOOK_SECONDS = 0.2
"""Shortest time between two looks: figures of many streams come dozens of times a second, and cost the cores that train."""
LINE_SECONDS = 5.0
"""Shortest time between two lines of a stream in training."""
OLD_LINES = 12
"""On attaching to a run this many of its newest entries are shown."""
QUIET_KINDS = (" claim ", " done ", " checkpoint ", " head ", " renew ")
"""Kinds of entries that are left out here; `swarm log` shows them."""


LIVE = (
    ("learning_rate", "lr"), ("grad_norm", "gn"), ("entropy", "ent"), ("token_accuracy", "acc"), ("tokens_per_second", "tok/s"),
    ("seconds", "elapsed"),
)  # fmt: skip
"""Figures that a line shows beside the loss."""
TRAINED = "trained"
"""The kind of the entry with which a training ends."""
TIME_METRICS = "time_metrics.json"
"""What the trainer has measured by then, in the stream's folder."""
SUMMARY = (
    ("train_loss", "last_loss", 4, ""), ("eval_loss", "eval_loss", 4, ""), ("train_runtime", "all_attempts_seconds", 1, "s"),
    ("samples/s", "sequences_per_second", 3, ""), ("steps/s", "steps_per_second", 3, ""), ("eval_steps/s", "evaluations_per_second", 3, ""),
)  # fmt: skip
"""What the line of an ended training calls them, with digits and unit."""


class _Interrupted(Exception):
    """A signal arrived: SIGINT stops the run, SIGTERM and SIGHUP end only this process."""


def follow(folder: RunFolder, *, owns: bool, form: bool | None = None, since: int | None = None) -> int:
    """Print until the run ends.

    Ctrl-C stops the run if this command started it (`owns`; a second Ctrl-C detaches), else it detaches.  SIGTERM and a hang-up
    detach.  `since`: show entries after this one; by default the newest `OLD_LINES`.  Returns the exit status of `swarm run`.
    """
    from swarm.cli import endings
    from swarm.views.watch import Watcher

    with Watcher.attach(folder.path) as watcher, _signals():
        lines = Lines(since if since is not None else max(0, watcher.snapshot().seq - OLD_LINES), folder)
        try:
            try:
                ended = _follow(watcher, lines)
            except _Interrupted as signalled:
                if not owns or signalled.args[0] != signal.SIGINT:
                    raise
                ended = _stop(watcher, lines)
        except _Interrupted:
            endings.print_detached(folder)
            return 0
    return endings.print_result(folder, form) if ended else endings.print_orphaned(folder)


def wait_for_end(folder: RunFolder) -> None:
    """Wait until the run has saved and stopped, and its coordinator has left."""
    from swarm.views.watch import Watcher

    with Watcher.attach(folder.path) as watcher:
        _follow(watcher, Lines(watcher.snapshot().seq))


def _stop(watcher: Watcher, lines: Lines) -> bool:
    from swarm.errors import UserError

    print("swarm: saving and stopping; Ctrl-C again detaches", file=sys.stderr)
    with contextlib.suppress(UserError):  # it ended at this moment
        watcher.say("stop", "run")
    return _follow(watcher, lines)


def _follow(watcher: Watcher, lines: Lines) -> bool:
    """True once the run has ended and its coordinator has left, False if its coordinator is gone before."""
    from swarm.cli import endings

    gone_since: float | None = None
    while True:
        watcher.wait(0.5)
        snapshot = watcher.snapshot()
        lines.show(snapshot)
        if snapshot.state == "ended":
            endings.wait_until_left(watcher.folder)
            return True
        gone_since = (gone_since or time.monotonic()) if snapshot.state == "no coordinator" else None
        if gone_since and time.monotonic() - gone_since > 3:
            return False
        time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    def interrupt(number: int, _: FrameType | None) -> None:
        raise _Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Lines:
    """Remembers what was printed."""

    def __init__(self, since: int = 0, folder: RunFolder | None = None) -> None:
        self._seq, self._folder = since, folder
        self._states: dict[str, str] = {}
        self._printed_at: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self._waits = ""

    def show(self, snapshot: Snapshot) -> None:
        for line in snapshot.tail:
            number = int(line.split(maxsplit=1)[0])
            if number > self._seq:
                self._seq = number
                if not any(kind in line for kind in QUIET_KINDS):
                    self._print(line)
                _, _, kind, ref, *_ = [*line.split(maxsplit=4), "", "", ""]
                if kind == TRAINED and self._folder:
                    self._summary(self._folder, ref.partition("/")[0])
        for row in snapshot.streams:
            self._stream(row)
        if snapshot.waits and snapshot.waits != self._waits:
            self._print(f"to decide: {snapshot.waits}")
        self._waits = snapshot.waits

    def _stream(self, row: StreamRow) -> None:
        now = time.monotonic()
        changed = self._states.get(row.name) != row.state and row.state in {"STALLED", "paused"}
        moved = row.state == "train" and row.step != self._steps.get(row.name)
        if changed or (moved and now - self._printed_at.get(row.name, 0.0) >= LINE_SECONDS):
            self._printed_at[row.name], self._steps[row.name] = now, row.step
            self._print(progress_line(row))
        self._states[row.name] = row.state

    def _summary(self, folder: RunFolder, stream: str) -> None:
        """What its training measured in all, where its file can be read."""
        try:
            metrics = json.loads(read_text(folder.stream(stream) / TIME_METRICS))
        except (OSError, ValueError):
            return
        self._print(f"{stream:<10} {summary_line(metrics)}")

    @staticmethod
    def _print(line: str) -> None:
        from swarm.cli.screen import for_people

        print(f"  {for_people(line)}", file=sys.stderr, flush=True)


def summary_line(metrics: Mapping[str, Any]) -> str:
    """Losses, seconds and speeds of a whole training: `train_loss=0.412 | eval_loss=0.455 | train_runtime=95.0s | samples/s=...`.

    A sample is a sequence; an evaluation's step is an evaluation of all held-out rows.
    """
    return " | ".join(
        f"{name}={metrics[key]:.{digits}f}{unit}"
        for name, key, digits, unit in SUMMARY
        if isinstance(metrics.get(key), int | float)
    )


def progress_line(row: StreamRow) -> str:
    curve = units.spark([loss for _, loss in row.curve("loss")], 8)
    parts = [
        f"{row.name:<10} {row.state:<8} step {row.step}/{row.steps or '?'}",
        f"loss {units.loss(row.figure('loss'))} {curve}",
    ]
    parts += [
        f"{short} {figures.of(name).text(value)}" for name, short in LIVE if (value := row.figure(name)) is not None
    ]
    parts += _held_out(row)
    if row.eta_seconds is not None:
        parts.append(f"eta {units.duration(row.eta_seconds)}")
    if row.why:
        parts.append(row.why)
    return "  ".join(parts)


def _held_out(row: StreamRow) -> list[str]:
    """The newest held-out loss and by how much it differs from the one before."""
    losses = [loss for _, loss in row.curve("eval_loss")[-2:]]
    change = f" ({losses[1] / losses[0] - 1:+.1%})" if len(losses) > 1 and losses[0] > 0 else ""
    return [f"eval {units.loss(losses[-1])}{change}"] if losses else []
