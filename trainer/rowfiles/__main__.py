"""python -m trainer.rowfiles mix | markdown | guard | pairs | toon | session ... [--json | --toon]

Prints what was made.  Exit status 2: nothing was written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from swarm.errors import UserError
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer.quiet import quieten
from trainer.rowfiles import guard, markdown, mix, pairs, session, table
from trainer.rowfiles.output import Made
from trainer.show import add_forms, print_form

COMMANDS: dict[str, Callable[[argparse.Namespace], Made]] = {
    "mix": mix.run, "markdown": markdown.run, "guard": guard.run, "pairs": pairs.run, "toon": table.run, "session": session.run,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    open_output()
    quieten()
    try:
        made = COMMANDS[arguments.command](arguments)
    except UserError as error:
        where = error.where if error.where != "datasets.path" else f"swarm data {arguments.command}"
        print(printable(f"{where}: {error.what}; {error.fix}"), file=sys.stderr)
        return 2
    for warning in made.warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    if not print_form(made.manifest, arguments.form):
        print(printable(made.line))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.rowfiles", description="Files of rows from rows.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True)
        command.add_argument("--force", action="store_true")
        add_forms(command)
        if name != "guard":
            command.add_argument("inputs", nargs="+")
        if name not in {"guard", "toon", "session"}:
            command.add_argument("--type", default="auto")
    given = commands.choices
    for name in ("mix", "pairs"):
        given[name].add_argument("--seed", type=int, default=42)
    given["mix"].add_argument("--strategy", choices=("repeat", "sample"), default="repeat")
    given["mix"].add_argument("--no-dedupe", dest="dedupe", action="store_false")
    given["mix"].add_argument("--no-shuffle", dest="shuffle", action="store_false")
    for name in ("mix", "markdown", "pairs"):
        given[name].add_argument("--limit", type=int)
    given["session"].add_argument("--all", action="store_true")
    given["session"].add_argument("--stream")
    _add_generation(given["pairs"])
    return parser


def _add_generation(command: argparse.ArgumentParser) -> None:
    command.add_argument("--by", choices=pairs.WAYS, required=True)
    command.add_argument("--length-matched", action="store_true")
    command.add_argument("--base")
    command.add_argument("--adapter", type=Path)
    command.add_argument("--max-new-tokens", type=int, default=160)
    command.add_argument("--temperature", type=float, default=0.3)
    command.add_argument("--top-p", type=float, default=0.9)


if __name__ == "__main__":
    sys.exit(main())
