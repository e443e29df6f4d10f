"""Rows of `.parquet` and `.arrow` files, a few at a time."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.settings import ending_of
from trainer.data.bad import BadRow, reason_of
from trainer.data.gate import written
from trainer.data.raw import RawRow, refuse_twice

BATCH_ROWS, BATCH_BYTES = 1024, 1 << 24
"""Of a Parquet file at most so many rows are taken at a time, and about so many bytes: one row may have megabytes."""


def read(path: Path) -> Iterator[RawRow | BadRow]:
    number = 0
    with reading_columns(path):
        for batch in batches(path):
            refuse_twice(path, batch.schema.names)
            for at in range(batch.num_rows):
                number += 1
                yield _row(f"{path}: row {number}", batch.slice(at, 1))


@contextmanager
def reading_columns(path: Path) -> Iterator[None]:
    """Raises UserError for a file that is not what its ending says."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        what = f"not a {ending_of(path)[1:].capitalize()} file that can be read ({reason_of(error)})"
        raise UserError(str(path), what, "write it again") from error


def batches(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if ending_of(path) == ".parquet":
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield from file.iter_batches(batch_size=_rows_at_a_time(file.metadata))
        return
    with pa.memory_map(str(path)) as source:
        try:
            reader: Any = pa.ipc.open_file(source)
            yield from map(reader.get_batch, range(reader.num_record_batches))
        except pa.ArrowInvalid:  # the format without a footer, which `datasets` writes
            source.seek(0)
            yield from pa.ipc.open_stream(source)


def _rows_at_a_time(about: Any) -> int:
    """By the bytes that a row has on average in the largest of its groups."""
    groups = [about.row_group(at) for at in range(about.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return int(min(BATCH_ROWS, max(1, BATCH_BYTES // max(1, row_bytes))))


def _row(where: str, row: Any) -> RawRow | BadRow:
    try:
        (values,) = row.to_pylist()
    except Exception as error:
        what = f"cannot be read ({reason_of(error)})"
        return BadRow(where, what, "write the column in another type", partial(_written_by_columns, row))
    return RawRow(where, values, partial(written, values), filled=True)


def _written_by_columns(row: Any) -> str:
    """A row of which some columns cannot be read: those as an Arrow stream in base64."""
    return written({name: _value_or_stream(row.select([name])) for name in row.schema.names})


def _value_or_stream(column: Any) -> Any:
    import pyarrow as pa

    try:
        return column.column(0)[0].as_py()
    except Exception:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, column.schema) as writer:
            writer.write_batch(column)
        return {"arrow": base64.b64encode(sink.getvalue().to_pybytes()).decode()}
