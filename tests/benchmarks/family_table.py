"""Prints the table of docs/families.md: families x adapters x check, plan, train 3 steps, resume, judge, load in plain PEFT.

python -m tests.benchmarks.family_table [FAMILY ...] > docs/families.md      about ten minutes on two quiet cores; exit status 1 where something failed
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

HEAD = """\
# Families

Tiny random bases of each family on the way of a stream, made by `python -m tests.benchmarks.family_table > docs/families.md` with {versions}, on a CPU.
`check` and `plan` are the commands' own; three steps are trained, as many parameters as `plan` says; resumed from the second step the adapter is bitwise
the same; it is judged by validator and evaluator; and transformers with PEFT alone load it, with the held-out loss that was judged.

| family | adapter | check | plan | train | resume | judge | load in PEFT |
|--------|---------|-------|------|-------|--------|-------|--------------|
"""


def main(wanted: list[str]) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    from trainer.quiet import quieten

    quieten()
    from tests import family_rows

    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("transformers", "peft", "trl", "torch"))
    print(HEAD.format(versions=versions), end="")
    failed, began = 0, time.monotonic()
    for family in wanted or family_rows.names():
        with tempfile.TemporaryDirectory() as name:
            base = family_rows.save_base(family, Path(name) / "base")
            for adapter in family_rows.ADAPTERS:
                folder = Path(name) / adapter.replace(" ", "")
                folder.mkdir()
                row = family_rows.tried(family, adapter, base, folder)
                failed += any(what.startswith("FAILED") for what in row.steps.values())
                cells = [row.steps.get(step, "") for step in family_rows.STEPS]
                print(f"| {family} | {adapter} | {' | '.join(cells)} |", flush=True)
    print(f"{failed} failed, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
