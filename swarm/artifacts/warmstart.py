"""The checkpoint from which a stream begins that joins a run: kept for it in its own folder, since others remove theirs as they train on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.artifacts.publish import intact
from swarm.events import Add, Checkpoint
from swarm.files import sync_folder
from swarm.plainfiles import link, make_folder, remove_tree, rename
from swarm.rundir import RunFolder
from swarm.state import Refusal, State

FOLDER = "warm"
"""Of the stream that joins."""
OPTIMIZER = "optimizer.pt"
"""The optimizer's state in a checkpoint, by every engine's name."""


@contextmanager
def kept(folder: RunFolder, state: State, event: Add) -> Iterator[Add]:
    """The event with the checkpoint of a warm start, whose files stay in place if the block succeeds.

    Raises Refusal where there is none, OSError.
    """
    if not event.warm:
        yield event
        return
    saved = _newest(folder, state, event.like)
    place = folder.stream(event.ref) / FOLDER
    _link(folder.path / saved.path, place)
    try:
        path = str(place.relative_to(folder.path))
        yield event.model_copy(update={"step": saved.step, "path": path, "sha256": saved.sha256})
    except BaseException:
        remove_tree(place)
        raise


def _newest(folder: RunFolder, state: State, name: str) -> Checkpoint:
    """The newest one that is as its entry states and that nobody has rejected."""
    stream = state.streams[name]
    for saved in reversed(stream.checkpoints):
        whole = (folder.path / saved.path / OPTIMIZER).is_file() and intact(folder, saved.path, saved.sha256) == "ok"
        if whole and saved.path not in stream.rejected:
            return saved
    raise Refusal(
        f"{name}: no checkpoint of it is whole and sound; wait for the next, or `swarm add` starts from step 0"
    )


def _link(source: Path, place: Path) -> None:
    """A checkpoint's files never change, so that a second name for them is a copy that costs nothing."""
    staged = place.with_name(f".{place.name}.staged")
    for left in (staged, place):
        remove_tree(left, ignore_errors=True)  # of an attempt that was cut off
    make_folder(staged)
    for file in source.iterdir():
        link(file, staged / file.name)
    rename(staged, place)
    sync_folder(place.parent)
