"""python -m trainer.data.counting FILE...: the rows of each file as JSON by its name, bad ones included; `{"problem", "fix"}` for one that cannot be read.

They are read as preparing reads them, but for the columns of Parquet and Arrow files, which say how many rows they have.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from swarm.errors import UserError
from swarm.settings import ending_of
from trainer.data.files import rows_of_file
from trainer.data.formats.arrow import batches, reading_columns


def main(names: list[str]) -> int:
    print(json.dumps({name: _answer(Path(name)) for name in names}))
    return 0


def _answer(path: Path) -> int | dict[str, str]:
    try:
        return _rows_in(path)
    except UserError as error:
        return {"problem": error.what, "fix": error.fix}


def _rows_in(path: Path) -> int:
    if ending_of(path) not in {".parquet", ".arrow"}:
        return sum(1 for _ in rows_of_file(path))
    with reading_columns(path):
        if ending_of(path) == ".arrow":
            return sum(batch.num_rows for batch in batches(path))
        import pyarrow.parquet as pq

        return int(pq.ParquetFile(path).metadata.num_rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
