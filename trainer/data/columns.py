"""python -m trainer.data.columns FILE... : the columns of each file's first rows, as one JSON object; files without rows are left out.

For `swarm init` and `swarm check`, which know no formats of their own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from swarm.errors import UserError
from trainer.data.files import rows_of_file
from trainer.data.raw import RawRow

ROWS_TRIED = 20
"""Bad rows may stand in front, and not every row has every column."""


def columns_of(path: Path) -> list[str]:
    """Empty for a file that holds no rows, or cannot be read."""
    try:
        rows = [row for row in islice(rows_of_file(path), ROWS_TRIED) if isinstance(row, RawRow)]
    except (UserError, OSError, ModuleNotFoundError):  # Parquet needs a library that comes with the training extra
        return []
    return list(dict.fromkeys(str(name) for row in rows for name in row.values))


def main(arguments: Sequence[str]) -> int:
    found = {name: columns_of(Path(name)) for name in arguments}
    print(json.dumps({name: columns for name, columns in found.items() if columns}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
