"""Checks that the files and folders that a config names exist, and makes their paths absolute; names on the hub are not checked.

A relative path is relative to the config's folder, or to the working folder if it was typed on the command line.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from swarm.config.names import close_to
from swarm.config.tree import Node, Problems
from swarm.printable import in_message
from swarm.rundir import promoted_as, runs_here
from swarm.settings import DATA_SUFFIXES, ending_of, wrong_ending
from swarm.weights import ADAPTER_CONFIG

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""owner/name, as on the hub."""
NAME_AT_MOST = 200
"""Characters; the hub's names have at most 96."""
FILES = ("json_schema",)
"""Settings of a stream that name a file."""
EMBEDDED = "tiny-toon"
"""The base that is included in this package."""


def absolute(root: Node, problems: Problems) -> Node:
    """The tree with the paths of data and of bases made absolute."""
    streams = root.items.get("streams")
    if streams is None or not streams.items:
        return root
    made = {name: _stream(stream, problems) for name, stream in streams.items.items()}
    return root.with_child("streams", replace(streams, value=made))


def files_of(pattern: str) -> list[Path]:
    """The files that an absolute path or pattern names, sorted."""
    try:
        found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)  # noqa: PTH113, PTH207  these two forgive any text
        return sorted(Path(name) for name in found if os.path.isfile(name))  # noqa: PTH113
    except (OSError, ValueError):  # a name too long or with a NUL names no file
        return []


def _stream(stream: Node, problems: Problems) -> Node:
    models = stream.items.get("models")
    if models and models.items:
        both = {name: _stream(model, problems) for name, model in models.items.items()}
        stream = stream.with_child("models", replace(models, value=both))
    for key in ("datasets", "test_datasets", "val_datasets"):
        datasets = stream.items.get(key)
        if datasets and isinstance(datasets.value, list):
            made = [_dataset(dataset, problems) for dataset in datasets.value]
            stream = stream.with_child(key, replace(datasets, value=made))
    sealed = stream.items.get("sealed_datasets")
    if sealed and isinstance(sealed.value, list):
        made = [_dataset(dataset, problems, is_read=False) for dataset in sealed.value]
        stream = stream.with_child("sealed_datasets", replace(sealed, value=made))
    judge = stream.items.get("judge")
    if judge and (rubric := judge.items.get("rubric")) and isinstance(rubric.value, str):
        stream = stream.with_child("judge", judge.with_child("rubric", _file(rubric, problems)))
    for key in FILES:
        file = stream.items.get(key)
        if file and isinstance(file.value, str):
            stream = stream.with_child(key, _file(file, problems))
    start = stream.items.get("start_adapter")
    if start and isinstance(start.value, str):
        stream = stream.with_child("start_adapter", _adapter(start, problems))
    base = stream.items.get("base_model")
    return stream.with_child("base_model", _base(base, problems)) if base and isinstance(base.value, str) else stream


def _file(file: Node, problems: Problems) -> Node:
    """A setting that names one file."""
    folder, text = file.at.folder, str(file.value)
    path = os.path.normpath(os.path.join(folder, _expanded(text)))  # noqa: PTH118
    if not os.path.isfile(path):  # noqa: PTH113
        what, fix = _nothing_found(folder, text, path)
        problems.add(file.at, file.path, what, fix)
    return replace(file, value=path)


def _adapter(named: Node, problems: Problems) -> Node:
    """A setting that names an adapter: by its folder, or by the version under which a run has promoted it."""
    text = str(named.value)
    folder = os.path.normpath(os.path.join(named.at.folder, _expanded(text)))  # noqa: PTH118
    if not os.path.isdir(folder) and (promoted := promoted_as(text, runs_here())):  # noqa: PTH112
        return replace(named, value=str(promoted.absolute()))
    if not os.path.isfile(os.path.join(folder, ADAPTER_CONFIG)):  # noqa: PTH113, PTH118
        what = f"{_shown(text)} is no adapter's folder{_in(named.at.folder, text)}, and no version that a run here has promoted"
        fix = f"name the folder with {ADAPTER_CONFIG} (runs/RUN/promoted), or a version: `swarm runs --promoted`"
        problems.add(named.at, named.path, what, fix)
    return replace(named, value=folder)


def _expanded(text: str) -> str:
    """`~` and `~user` as their folders; unknown users stay as they are."""
    try:
        return os.path.expanduser(text)  # noqa: PTH111  Path.expanduser raises on unknown users
    except ValueError:  # a NUL in the user's name
        return text


# ---- data ------------------------------------------------------------------------------------------------------------


def _dataset(dataset: Node, problems: Problems, *, is_read: bool = True) -> Node:
    """Sealed rows are not read: their file must be there, and what is in it is the validator's business."""
    path = dataset.items.get("path")
    if path is None or not isinstance(path.value, str):
        return dataset
    pattern = _absolute_pattern(path.at.folder, path.value)
    if files := files_of(pattern):
        _check_endings(files, path, problems)
        if is_read:
            _check_rows(files, path, problems)
        return dataset.with_child("path", replace(path, value=pattern))
    if _is_hub_dataset(path.value) and not _begins_with_a_folder(path.at.folder, path.value):
        return dataset
    what, fix = _nothing_found(path.at.folder, path.value, pattern)
    problems.add(path.at, path.path, what, fix)
    return dataset


def _absolute_pattern(folder: Path, text: str) -> str:
    """The pattern as an absolute one; special characters in the names of existing folders and files are escaped."""
    written = _expanded(text)
    whole = os.path.normpath(os.path.join(folder, written))  # noqa: PTH118
    if os.path.isfile(whole):  # noqa: PTH113
        return glob.escape(whole)
    if Path(written).is_absolute():
        return written
    return f"{glob.escape(os.path.normpath(folder))}/{written.removeprefix('./')}"


def _is_hub_dataset(text: str) -> bool:
    return HUB_NAME.fullmatch(text) is not None and not text.lower().endswith(DATA_SUFFIXES)


def _begins_with_a_folder(folder: Path, text: str) -> bool:
    """Whether the first part is a folder: `data/train` is then a file without its ending, and no dataset of the hub."""
    return (folder / text.partition("/")[0]).is_dir()


def _check_endings(files: list[Path], path: Node, problems: Problems) -> None:
    if wrong := next((found for file in files if (found := wrong_ending(Path(file.name)))), None):
        what, fix = wrong
        problems.add(path.at, path.path, what, f"{fix}, or name other files")


def _check_rows(files: list[Path], path: Node, problems: Problems) -> None:
    for file in files:
        if ending_of(file) in DATA_SUFFIXES and not _holds_rows(file):
            problems.add(path.at, path.path, f"{file} holds no rows", "put rows into it, or name other files")


def _holds_rows(file: Path) -> bool:
    """False if the file is empty; other mistakes are found when the rows are read."""
    if ending_of(file) in {".parquet", ".arrow"}:
        return file.stat().st_size > 0
    try:
        with file.open("rb") as opened:
            lines = (line for line in opened if line.strip(b" \t\r\n\xef\xbb\xbf"))
            first = next(lines, b"")
            if ending_of(file) in {".csv", ".tsv"}:  # the first line names the columns
                return next(lines, None) is not None
            return first.strip() not in {b"", b"[]"} or next(lines, None) is not None
    except OSError:  # reported when its rows are read
        return True


def _nothing_found(folder: Path, text: str, pattern: str) -> tuple[str, str]:
    what = f"no file matches {_shown(text)}{_in(folder, text)}"
    if "://" in text:
        return f"{_shown(text)} is an address", "download the file, or write `owner/name` for a dataset of the hub"
    try:
        if os.path.isdir(pattern):  # noqa: PTH112
            return (
                f"{_shown(text)} is a folder",
                f"write {_shown(text).rstrip('/')}/*.jsonl, or another pattern of files",
            )
        parent = _real_parent(pattern)
        return what, _what_is_there(
            parent,
            Path(pattern).name,
            asked="the folder" if _same_folder(parent, pattern) and _in(folder, text) else str(parent),
        )
    except (OSError, ValueError):  # a name too long or with a NUL
        return what, "correct the path"


def _in(folder: Path, text: str) -> str:
    """The folder to which the text is relative; empty if it is absolute."""
    return "" if Path(_expanded(text)).is_absolute() else f" in {folder}"


def _real_parent(pattern: str) -> Path:
    """The deepest existing folder above the path."""
    return next((parent for parent in Path(pattern).parents if parent.is_dir()), Path("/"))


def _same_folder(parent: Path, pattern: str) -> bool:
    return Path(pattern).parent == parent


def _what_is_there(parent: Path, name: str, asked: str) -> str:
    there = sorted(entry.name for entry in parent.iterdir() if entry.is_file())
    files = [entry for entry in there if ending_of(entry) in DATA_SUFFIXES]
    without_ending = next((entry for entry in files if Path(entry).stem == name), None)
    if close := without_ending or close_to(name, files, likeness=0.8):
        return f"did you mean {close}?"
    counts = Counter(map(ending_of, files))
    if not counts:
        return f"{asked} holds no data files"
    return f"{asked} holds " + ", ".join(
        f"{count} {suffix} file{'s' if count > 1 else ''}" for suffix, count in sorted(counts.items())
    )


def _shown(text: str) -> str:
    shown = in_message(text)
    return shown if len(shown) <= 120 else shown[:117] + "..."


# ---- bases -----------------------------------------------------------------------------------------------------------


def _base(base: Node, problems: Problems) -> Node:
    text = str(base.value)
    folder = os.path.normpath(os.path.join(base.at.folder, _expanded(text)))  # noqa: PTH118
    if text == EMBEDDED:
        return base
    if text and os.path.isdir(folder):  # noqa: PTH112
        if not os.path.isfile(os.path.join(folder, "config.json")):  # noqa: PTH113, PTH118
            problems.add(
                base.at,
                base.path,
                f"{_shown(text)} holds no config.json",
                "name the folder of a whole model, not of an adapter",
            )
        return replace(base, value=folder)
    if text and os.path.exists(folder) and _looks_like_a_path(text):  # noqa: PTH110
        problems.add(
            base.at, base.path, f"{_shown(text)} is a file", "name the folder of a whole model, or a name on the hub"
        )
    elif not text.strip() or _looks_like_a_path(text):
        problems.add(
            base.at,
            base.path,
            f"there is no folder {_shown(text)}{_in(base.at.folder, text)}",
            f"correct it, or write `{EMBEDDED}` or a name on the hub",
        )
    return base


def _looks_like_a_path(text: str) -> bool:
    return (
        text.startswith((".", "/", "~"))
        or "\\" in text
        or text.count("/") > 1
        or text.endswith("/")
        or not text.isprintable()
        or " " in text
        or len(text) > NAME_AT_MOST
    )
