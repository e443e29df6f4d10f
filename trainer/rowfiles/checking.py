"""python -m trainer.rowfiles.checking --settings FILE [--json | --toon]

Prepares the rows of streams as a run would, keeps nothing, and prints what was found.  FILE holds settings of streams by name, as JSON.
Exit status 2: at least one stream would be refused.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarm.errors import UserError
from swarm.policy.fitting import refuse_unfit
from swarm.printable import printable
from swarm.settings import StreamSettings
from swarm.surroundings import open_output
from trainer import bases
from trainer.data.prepared import OF_ROWS, key_of
from trainer.quiet import quieten
from trainer.show import add_forms, print_form

ASKED = {"base_model", "trust_remote_code", "datasets", "test_datasets", "val_datasets", "val_set_size", *OF_ROWS}
"""Settings on which the rows depend."""
COUNTS = ("rows", "held_out", "tokens", "supervised", "cut", "empty", "bad", "duplicates", "overlap")


def checked(settings: StreamSettings) -> dict[str, Any]:
    """Counts, and what a reader should know.  Raises UserError with what a run would be refused for."""
    from trainer.data.boundary import boundary_of
    from trainer.data.preparing import Preparation
    from trainer.loading import load_tokenizer

    folder = bases.folder_of(settings.base_model)
    facts = bases.facts_of(settings.base_model, trust_remote_code=settings.trust_remote_code)
    refuse_unfit(settings, facts)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    with tempfile.TemporaryDirectory(prefix="toonswarm-") as name:
        boundary = boundary_of(settings, tokenizer, folder, facts.embedding_rows)
        preparation = Preparation(settings, boundary, Path(name), lambda rows: None)
        made = preparation.make(key_of(settings, folder))
        return {**{key: made[key] for key in COUNTS}, "mixed": made["mixed"], "remarks": preparation.remarks(made)}


def report(streams: dict[str, StreamSettings]) -> list[dict[str, Any]]:
    """A document for each stream; those that ask for the same rows share the work."""
    found: dict[str, dict[str, Any]] = {}
    rows = []
    for name, settings in streams.items():
        asked = settings.model_dump_json(include=ASKED)
        if asked not in found:
            try:
                found[asked] = {"problem": "", **checked(settings)}
            except UserError as error:
                found[asked] = {"problem": str(error)}
        rows.append({"stream": name, **found[asked]})
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.rowfiles.checking", description="What would be trained on?"
    )
    parser.add_argument("--settings", type=Path, required=True)
    add_forms(parser)
    arguments = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        given = json.loads(arguments.settings.read_text(encoding="utf-8"))
        rows = report({name: StreamSettings.model_validate(values) for name, values in given.items()})
    except (OSError, ValueError, ValidationError) as error:
        print(
            printable(f"--settings: no settings of streams ({error}); give a config to `swarm data check`"),
            file=sys.stderr,
        )
        return 2
    if not print_form(rows, arguments.form):
        for row in rows:
            print(printable(_text(row)))
    return 2 if any(row["problem"] for row in rows) else 0


def _text(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"{row['stream']}: refused: {row['problem']}"
    counts = f"{row['rows']} rows to train on, {row['held_out']} held out; {row['tokens']} tokens, {row['supervised']} supervised"
    more = ", ".join(f"{row[key]} {word}" for key, word in WORDS.items() if row[key])
    return "\n".join(
        [f"{row['stream']}: {counts}" + (f"; {more}" if more else ""), *(f"  {line}" for line in row["remarks"])]
    )


WORDS = {"cut": "cut", "empty": "cut before their answer", "bad": "bad", "duplicates": "equal to earlier ones", "overlap": "equal to held-out ones"}  # fmt: skip
"""Counts that are named where there are any."""


if __name__ == "__main__":
    sys.exit(main())
