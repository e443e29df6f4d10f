"""Prepared rows on disk: `prepared/<key>/` with train.arrow, held_out.arrow and a manifest; the key hashes all that they depend on.

Streams that ask for the same find it whole.  Rows pass through in batches, so that memory stays small however long a file is.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import pyarrow as pa

from swarm import kinds
from swarm.errors import UserError
from swarm.settings import Dataset, StreamSettings
from swarm.weights import sha256_of
from trainer.data.classes import classes_of
from trainer.data.files import files_of
from trainer.data.settling import settled
from trainer.data.tokens import IGNORED, Tokens
from trainer.whole import Torn, verify

FORMAT = 3
"""Raised when the same settings would give other rows."""
TRAIN, HELD_OUT, BAD_ROWS = "train.arrow", "held_out.arrow", "bad_rows.jsonl"
VALIDATION = "validation.arrow"
"""Rows on which steps are chosen, where there are any beside the held-out ones."""
BATCH_ROWS = 512
OF_ROWS = (
    "sequence_len", "train_on_inputs", "train_on", "on_bad_row", "allow_overlap", "system_prompt", "dedupe", "mix_strategy", "mix_seed",
    "ablate_examples", "ablate_seed", "max_cut_rows", "max_lost_rows", "sequence_prefix", "mask_tokens", "max_sequences", "drop_tails",
    "mix_datasets", "isolate_documents",
)  # fmt: skip
"""Settings of a stream that rows depend on."""
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
)

ROWS = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("answer_start", pa.int32()),
        ("cut", pa.bool_()),
        ("fingerprint", pa.binary()),
        ("rejected", pa.list_(pa.int32())),
        ("task", pa.string()),
        ("classes", pa.list_(pa.int8())),
        ("demonstrated", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class Key:
    """What prepared rows depend on."""

    data_sha256: str
    """Of the dataset files, their order and how they are read: seeds the split."""
    sha256: str
    """Of everything."""

    @property
    def folder(self) -> str:
        return self.sha256[:16]


def key_of(settings: StreamSettings, base_folder: Path) -> Key:
    data, tests, validation = (
        [_source(dataset) for dataset in listed]
        for listed in (settings.datasets, settings.test_datasets, settings.val_datasets)
    )
    tokenizer = {name: sha256_of(base_folder / name) for name in TOKENIZER_FILES if (base_folder / name).is_file()}
    whole = {
        "format": FORMAT, "tokenizer": tokenizer, "datasets": data, "test_datasets": tests, "val_datasets": validation,
        "weights": [dataset.weight for dataset in settings.datasets],
        "val_set_size": None if tests else settings.val_set_size,
        **{name: getattr(settings, name) for name in OF_ROWS},
        **kinds.method(settings.method).of_rows(settings),
        **({"classes": True} if has_classes(settings) else {}),
    }  # fmt: skip
    return Key(_sha256({"datasets": data}), _sha256(whole))


def has_classes(settings: StreamSettings) -> bool:
    """Whether the class of each token is kept with the rows."""
    return any(kinds.adapter(part.adapter).reads_classes for part in settings.parts.values())


def with_classes(row: Tokens, settings: StreamSettings, dataset: Dataset) -> Tokens:
    return replace(row, classes=classes_of(row, dataset)) if has_classes(settings) else row


def _source(dataset: Dataset) -> dict[str, Any]:
    """A dataset by its content: where its files lie does not matter, a hub dataset goes by its name, and its weight chooses no row."""
    files = files_of(dataset)
    read = settled(dataset).model_dump(mode="json", exclude={"path", "weight"}, exclude_defaults=True)
    return {**read, "files": [sha256_of(path) for path in files] or dataset.path}


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class RowFile:
    """An Arrow file of tokenised rows being written, with its counts and the hash of its content."""

    def __init__(self, path: Path) -> None:
        self.rows = self.tokens = self.supervised = self.cut = 0
        self.classes: set[int] = set()
        """Of supervised tokens."""
        self._digest = hashlib.sha256()
        self._batch: list[Tokens] = []
        self.path = path
        self._writer = pa.ipc.new_stream(str(path), ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()
        self._writer.close()

    def add(self, row: Tokens) -> None:
        self.rows += 1
        self.tokens += len(row.ids)
        self.supervised += row.supervised
        self.cut += row.cut > 0
        if row.classes:
            self.classes.update(one for one, label in zip(row.classes, row.labels, strict=True) if label != IGNORED)
        own = (row.rejected, row.task, row.demonstrated, _steered(row))
        self._digest.update(repr((row.ids, row.labels, *filter(None, own))).encode())
        self._batch.append(row)
        if len(self._batch) >= BATCH_ROWS:
            self._write()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def _write(self) -> None:
        columns: list[Sequence[Any]] = [
            [row.ids for row in self._batch],
            [row.labels for row in self._batch],
            [row.answer_start for row in self._batch],
            [row.cut > 0 for row in self._batch],
            [row.fingerprint for row in self._batch],
            [list(row.rejected) for row in self._batch],
            [row.task for row in self._batch],
            [list(row.classes) for row in self._batch],
            [list(row.demonstrated) for row in self._batch],
        ]
        if self._batch:
            arrays = [_column(column, field.type) for column, field in zip(columns, ROWS, strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=ROWS))
        self._batch = []


CODES = {pa.int32(): "i", pa.int8(): "b"}
"""Of `array`."""


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """What `pa.array` makes of values none of which is None; given a list, that imports pandas, a third of the time of small data."""
    if kind == pa.bool_():
        return _column(values, pa.int8()).cast(kind)
    if code := CODES.get(kind):
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(array(code, values))])
    parts = [value.encode() for value in values] if kind == pa.string() else values
    ends = pa.py_buffer(array("i", accumulate(map(len, parts), initial=0)))
    if isinstance(kind, pa.ListType):
        inner = _column([*chain.from_iterable(parts)], kind.value_type)
        return pa.Array.from_buffers(kind, len(parts), [None, ends], children=[inner])
    return pa.Array.from_buffers(kind, len(parts), [None, ends, pa.py_buffer(b"".join(parts))])


def verified(folder: Path, sha256: str | None) -> dict[str, Any]:
    """The facts of prepared rows; raises UserError unless they are, byte for byte, those that the log names by `sha256`."""
    try:
        return verify(folder, sha256)
    except Torn as error:
        raise UserError(f"prepared/{folder.name}", str(error), "put it back as it was, or start a new run") from error


def read_rows(path: Path) -> Iterator[Tokens]:
    """The rows of an Arrow file, a batch in memory at a time."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            yield from map(_tokens, batch.to_pylist())


def _steered(row: Tokens) -> tuple[int, ...]:
    """Its classes, unless all that is supervised is of class +1: then it is judged as it is of adapters without classes."""
    is_plain = all(one in (0, label != IGNORED) for one, label in zip(row.classes, row.labels, strict=False))
    return () if is_plain else tuple(row.classes)


class Rows(Sequence[Tokens]):
    """The rows of an Arrow file by number; they stay on disk, mapped, until one is asked for."""

    def __init__(self, path: Path) -> None:
        self._batches = list(pa.ipc.open_stream(pa.memory_map(str(path))))
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def lengths(self) -> list[int]:
        """Tokens of each row, without reading the rows themselves."""
        import pyarrow.compute as pc

        return [
            length for batch in self._batches for length in pc.list_value_length(batch.column("input_ids")).to_pylist()
        ]

    def tasks(self) -> list[str]:
        """Names, without reading the rows themselves; those that the version before prepared have none."""
        columns = (batch.column("task") for batch in self._batches if "task" in batch.schema.names)
        return sorted({name for column in columns for name in column.unique().to_pylist()})

    @overload
    def __getitem__(self, at: int) -> Tokens: ...
    @overload
    def __getitem__(self, at: slice) -> list[Tokens]: ...

    def __getitem__(self, at: int | slice) -> Tokens | list[Tokens]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        number = bisect_right(self._ends, at)
        return _tokens(
            self._batches[number].slice(at - self._ends[number] + self._batches[number].num_rows, 1).to_pylist()[0]
        )


def _tokens(row: dict[str, Any]) -> Tokens:
    """Rows that versions before prepared have no fingerprint, worse answer, classes or teacher's prompt."""
    return Tokens(
        row["input_ids"], row["labels"], row["answer_start"], int(row["cut"]), row.get("fingerprint", b""),
        row.get("rejected") or (), row.get("task") or "", row.get("classes") or (), row.get("demonstrated") or (),
    )  # fmt: skip


def rows_to_choose_by(folder: Path) -> list[Tokens]:
    """The rows on which steps are chosen: those of `val_datasets`, else the held-out ones."""
    path = folder / VALIDATION
    return list(read_rows(path if path.is_file() else folder / HELD_OUT))


def counts_all(row: Tokens) -> bool:
    """True for a row whose loss counts something; one that was cut before its answer teaches nothing."""
    return any(label != IGNORED for label in row.labels)
