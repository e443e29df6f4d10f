"""Do the columns that a dataset's settings name stand in its files?  Read by a process of the trainer, only where something depends on it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from swarm.config.names import close_to
from swarm.config.paths import files_of
from swarm.config.tree import Node, Problems, follow
from swarm.errors import UserError
from swarm.policy import templates
from swarm.policy.row_types import guessed
from swarm.settings import PLAIN, Dataset, Part, RunSettings
from swarm.spawning import module_command


def look(root: Node, run: RunSettings, problems: Problems) -> None:
    """Adds templates that are none, columns that no row has, and files whose columns fit no row type."""
    read_ahead(run)
    for name, settings in run.streams.items():
        for key, part in settings.parts.items():
            group, _ = follow(root.items["streams"].items[name], settings.part_steps(key))
            for listed, number, dataset in _datasets(part):
                node, _ = follow(group, [listed, number])
                for setting, what, fix in _wrong(dataset):
                    at, path = node.setting(setting)
                    if not problems.has(at, path):
                        problems.add(at, path, what, fix)


def read_ahead(run: RunSettings) -> None:
    """The files of all datasets by one process, so that `look` starts none."""
    parts = [part for settings in run.streams.values() for part in settings.parts.values()]
    datasets = [dataset for part in parts for _, _, dataset in _datasets(part)]
    columns_in([file for dataset in datasets if _depends(dataset) for file in files_of(dataset.path)])


def _datasets(part: Part) -> Iterator[tuple[str, int, Dataset]]:
    """Each with the setting that lists it and its number there."""
    for listed in ("datasets", "test_datasets", "val_datasets"):
        for number, dataset in enumerate(getattr(part, listed)):
            yield listed, number, dataset


Seen = tuple[str, int, int]
"""A file's name, size, and time of its last change."""
_known: dict[Seen, list[str] | None] = {}


def columns_in(files: Sequence[Path]) -> dict[str, list[str]]:
    """The columns of each file's first rows, by its name; a file without rows is left out.  One process reads all that are not known."""
    seen = {str(file): (str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files}
    if unknown := [name for name, about in seen.items() if about not in _known]:
        found = _read(unknown)
        _known.update({seen[name]: found.get(name) for name in unknown})
    return {name: columns for name, about in seen.items() if (columns := _known[about])}


def _read(names: Sequence[str]) -> dict[str, list[str]]:
    done = subprocess.run(
        module_command("trainer.data.columns", *names), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    try:
        found: dict[str, list[str]] = json.loads(done.stdout)
    except ValueError:  # without what training needs: preparing will say it
        return {}
    return found


COLUMNS = ("messages", "prompt", "completion", "text")
OF_TYPES = {
    "chatml": ("messages",), "text": ("text",), "document": ("text",), "labelled": ("text", "text_pair", "label"),
    "prompt_completion": ("prompt", "completion"), "toon": ("prompt", "completion"),
}  # fmt: skip
"""Settings that name the columns without which a row of a type is a bad one."""
ALWAYS = ("group_by", "task", "rejected")
Wrong = tuple[str, str, str]
"""Setting, what and fix."""


def _depends(dataset: Dataset) -> bool:
    """Whether anything of it depends on the columns of its files."""
    with suppress(UserError):
        return dataset.type == "auto" or bool(_named(dataset))
    return False


def _wrong(dataset: Dataset) -> Iterator[Wrong]:
    try:
        named = _named(dataset)
    except UserError as error:
        yield error.where, error.what, error.fix
        return
    if not _depends(dataset):
        return
    for file, columns in columns_in(files_of(dataset.path)).items():
        yield from _missing(file, columns, named)
        if (
            dataset.type == "auto"
            and dataset.prompt_template is None
            and not _is_named(dataset, columns)
            and guessed(columns) is None
        ):
            what = f"no row type fits the columns of {file} ({', '.join(columns)})"
            yield "type", what, "write `type:` and name its columns"


def _named(dataset: Dataset) -> dict[str, str]:
    """Columns by name, with the setting that names each.  Raises UserError for a template that is none."""
    template_writes_prompt = dataset.prompt_template is not None
    keys = [key for key in OF_TYPES.get(dataset.type, ()) if key != "prompt" or not template_writes_prompt]
    named = {column: key for key in (*ALWAYS, *keys) if (column := getattr(dataset, key))}
    if dataset.type == "alpaca":
        named |= dict.fromkeys(["output"] if template_writes_prompt else ["instruction", "output"], "type")
    if dataset.type in {"chatml", *PLAIN}:
        return named
    template, without_input = templates.settled(dataset.prompt_template or "", dataset.no_input_template)
    for text, setting in ((template, "prompt_template"), (without_input, "no_input_template")):
        if text:
            named |= dict.fromkeys(templates.placeholders(text), setting)
    return named


def _is_named(dataset: Dataset, columns: Sequence[str]) -> bool:
    """Whether the settings name a column that stands there, by another name than the default."""
    named = ((getattr(dataset, key), Dataset.model_fields[key].default) for key in COLUMNS)
    return any(name != default and name in columns for name, default in named)


def _missing(file: str, columns: Sequence[str], named: dict[str, str]) -> Iterator[Wrong]:
    for column, setting in named.items():
        if column not in columns and not (setting == "prompt_template" and column == templates.INPUT):
            near = close_to(column, list(columns), likeness=0.8)
            fix = f"did you mean {near}?" if near else f"it has {', '.join(columns)}"
            yield setting, f"{file} has no column {column!r}", fix
