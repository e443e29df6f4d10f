"""How the rows of a dataset are read, where its settings leave that open: by the columns of its first row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from swarm.errors import UserError
from swarm.policy.row_types import guessed
from swarm.settings import Dataset
from trainer.data.files import raw_rows
from trainer.data.raw import RawRow

ROWS_TRIED = 20
"""Bad rows may stand in front."""


def settled(dataset: Dataset) -> Dataset:
    """The dataset with its row type and the columns that go with it.  Raises UserError where no type fits."""
    if dataset.type != "auto":
        return dataset
    whole = dataset.model_copy(update={"limit": None, "shuffle": False})
    first = next((row for row in islice(raw_rows(whole), ROWS_TRIED) if isinstance(row, RawRow)), None)
    if first is None:  # whatever is wrong with the rows is said where they are read
        return dataset.model_copy(update={"type": "chatml"})
    columns = list(map(str, first.values))
    choice = _named(dataset, columns) or guessed(columns)
    if choice is None:
        what = f"no row type fits the columns ({', '.join(columns) or 'none'})"
        raise UserError(first.where, what, "write `type:` and name its columns in `datasets:`")
    return dataset.model_copy(update=dict(choice))


def _named(dataset: Dataset, columns: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The type whose columns the settings name: by another name than the default, which says nothing."""

    def stands(key: str) -> bool:
        name = getattr(dataset, key)
        return name != Dataset.model_fields[key].default and name in columns

    if stands("completion") or (dataset.prompt_template and dataset.completion in columns) or stands("prompt"):
        return (("type", "prompt_completion"),)
    return (("type", "chatml"),) if stands("messages") else (("type", "text"),) if stands("text") else ()
