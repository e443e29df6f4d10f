"""Which adapter a word means: a folder, a run by what it promoted, or a stream."""

from __future__ import annotations

from pathlib import Path


def adapter_folder(word: str, run: str | None) -> str:
    """An adapter's folder for a run or a stream; folders, bases and NAME=FOLDER are passed on.  Raises UserError."""
    from swarm import rundir
    from swarm.errors import UserError
    from swarm.rundir import RunFolder
    from swarm.weights import ADAPTER_CONFIG

    name, path = ("", word) if "=" not in word or Path(word).exists() else word.split("=", 1)
    named = f"{name}=" if name else ""
    if (Path(path) / ADAPTER_CONFIG).is_file():
        return word
    for folder in (Path(path), rundir.runs_here() / path):
        if path and RunFolder(folder).is_run:
            promoted = RunFolder(folder.resolve()).promoted
            if not promoted.exists():
                raise UserError(word, "has promoted nothing", f"name a stream's adapter: {folder}/streams/NAME/adapter")
            return f"{named}{_checked(promoted)}"
    stream = _stream_folder(path, run)
    return f"{named}{_checked(stream)}" if stream else word


def _checked(adapter: Path) -> Path:
    """A folder of a run.  Raises UserError where a file of the adapter is gone, OSError where one is not the run's."""
    from swarm.errors import UserError
    from swarm.weights import check_adapter

    try:
        check_adapter(adapter)
    except FileNotFoundError as error:
        what = f"has no {Path(error.filename).name}, which the run had written"
        raise UserError(str(adapter), what, "name another stream, or `swarm promote` one again") from error
    return adapter


def _stream_folder(name: str, run: str | None) -> Path | None:
    """The published adapter of a stream of the run, by default the newest; None where it has no such stream."""
    from swarm import rundir
    from swarm.errors import UserError

    if not rundir.is_name(name) or (run is None and next(rundir.all_runs(rundir.runs_here()), None) is None):
        return None
    folder = rundir.find(run)
    if not folder.stream(name).is_dir():
        return None
    adapter = folder.stream(name) / "adapter"
    if not adapter.exists():
        raise UserError(name, f"has no adapter in {folder.name} yet", "wait until the stream is validated")
    return adapter


def scaled_adapter(word: str, run: str | None) -> str:
    """The same of ADAPTER:SCALE."""
    name, colon, scale = word.rpartition(":")
    return f"{adapter_folder(name, run)}:{scale}" if colon and not Path(word).exists() else adapter_folder(word, run)
