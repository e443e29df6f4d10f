"""python -m trainer.show --settings FILE [--rows 3] [--json | --toon]

Some rows of a stream as the base will read them, with what the loss counts marked, their tokens, and what would be cut.
FILE holds one stream's settings as JSON.  Nothing is written, and no weights are loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from swarm import kinds
from swarm.errors import UserError
from swarm.printable import printable
from swarm.settings import StreamSettings
from swarm.surroundings import open_output
from toon import encode
from trainer import bases
from trainer.quiet import quieten

REVERSE, PLAIN = "\x1b[7m", "\x1b[0m"


@dataclass(frozen=True)
class Shown:
    """One row as it will be trained on."""

    where: str
    parts: list[tuple[bool, str]]
    """Runs of text, and whether the loss counts them; what would be cut is left out."""
    tokens: int
    supervised: int
    cut: int
    """Tokens beyond sequence_len."""
    problem: str = ""
    """Why the row cannot be used."""


def shown_rows(settings: StreamSettings) -> Iterator[Shown]:
    """The training rows in the order of the files, bad ones with their problem."""
    from trainer.data.bad import BadRow
    from trainer.data.boundary import boundary_of
    from trainer.loading import load_tokenizer

    folder = bases.folder_of(settings.base_model)
    tokenizer = load_tokenizer(folder, trust_remote_code=settings.trust_remote_code)
    facts = bases.facts_of(settings.base_model, trust_remote_code=settings.trust_remote_code)
    boundary = boundary_of(settings, tokenizer, folder, facts.embedding_rows)
    objective = kinds.method(settings.method).objective(settings)
    for item in boundary.rows(settings.datasets):
        if isinstance(item, BadRow):
            yield Shown(item.where, [], 0, 0, 0, f"{item.what}; {item.fix}")
        else:
            row = item.row
            yield Shown(item.where, objective.shown(row, tokenizer), len(row.ids), row.supervised, row.cut)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.show", description="Rows as the base will read them.")
    parser.add_argument("--settings", type=Path, required=True, help="one stream's settings as JSON")
    parser.add_argument("--rows", type=int, default=3)
    add_forms(parser)
    arguments = parser.parse_args(argv)
    open_output()
    quieten()
    try:
        rows = shown_rows(settings_of(arguments.settings))
        chosen = list(islice(rows, arguments.rows))
        if not chosen:
            raise UserError("datasets", "hold no rows", "put rows into the files, or name others")
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    if not print_form([asdict(row) for row in chosen], arguments.form):
        print("\n\n".join(_as_text(row, colour=sys.stdout.isatty()) for row in chosen))
    return 2 if all(row.problem for row in chosen) else 0


def add_forms(parser: argparse.ArgumentParser) -> None:
    forms = parser.add_mutually_exclusive_group()
    for form in ("json", "toon"):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=f"as {form.upper()}")


def print_form(value: object, form: str | None) -> bool:
    """The value on stdout in the form that was asked for; False where none was."""
    if form is None:
        return False
    text = json.dumps(value, ensure_ascii=False) if form == "json" else encode(value)
    print(printable(text) if sys.stdout.isatty() else text)
    return True


def settings_of(path: Path) -> StreamSettings:
    try:
        return StreamSettings.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        what = " ".join(str(error).split())[:300]
        raise UserError(str(path), f"no settings of a stream ({what})", "give the JSON of one stream") from error


def _as_text(row: Shown, *, colour: bool) -> str:
    if row.problem:
        return printable(f"{row.where}: {row.problem}")
    begin, end = (REVERSE, PLAIN) if colour else ("[[", "]]")
    text = "".join(f"{begin}{printable(part)}{end}" if counted else printable(part) for counted, part in row.parts)
    cut = f", {row.cut} more cut off by sequence_len" if row.cut else ""
    return f"{row.where}: {row.tokens} tokens, {row.supervised} supervised{cut}\n{text}"


if __name__ == "__main__":
    sys.exit(main())
