"""What `swarm compare` prints: the answers of a base and its adapters beside one another, as they come."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.spawning import module_command

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from swarm.views.comparison import Comparison

NARROWEST = 28
"""Cells of an answer's column; where there are fewer, answers stand below one another."""
WITHOUT_TERMINAL = 100
"""Cells of a line that goes into a file or a pipe."""


def compared(words: list[str], form: bool | None) -> Comparison:
    """Asks, and prints each prompt's answers as they come, or all of them as data."""
    from swarm.cli import screen
    from swarm.views.comparison import Comparison, asked_how

    console, answers = _console(), _answers_of(words)
    comparison = Comparison(next(answers))
    if form is None:
        screen.tell(asked_how(comparison.about))
    for row in answers:
        comparison.rows.append(row)
        if form is None:
            _print_row(console, row)
    if form is None:
        screen.tell("")
        screen.tell(screen.columns(_summary_rows(comparison)))
    else:
        screen.print_data(comparison.data(), form)
    return comparison


def _answers_of(words: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON lines of the trainer, as they come; leaves with its exit status where that is not 0."""
    command = module_command("trainer.ship.compare", *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout
        try:
            yield from map(json.loads, process.stdout)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        sys.exit(process.returncode)


def _summary_rows(comparison: Comparison) -> list[list[str]]:
    rows = comparison.summary()
    heads = [name.replace("_", " ") for name in rows[0]]
    return [heads, *([("-" if value is None else str(value)) for value in row.values()] for row in rows)]


def _console() -> Console:
    from rich.console import Console

    from swarm.cli import screen

    return Console(width=screen.room() or WITHOUT_TERMINAL, markup=False, highlight=False, soft_wrap=False)


def _print_row(console: Console, row: dict[str, Any]) -> None:
    from rich.text import Text

    from swarm.cli import screen

    console.print()
    console.print(Text(screen.for_people(f"{row['number']}. {row['prompt']}"), style="bold"))
    beside = console.width // len(row["answers"]) >= NARROWEST
    console.print(_beside(row["answers"]) if beside else _below(row["answers"]))
    sys.stdout.flush()


def _beside(answers: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(show_edge=False, expand=True)
    for answer in answers:
        table.add_column(_shown(answer["model"]), ratio=1, overflow="fold")
    table.add_row(*(_shown(answer["text"]) for answer in answers))
    table.add_row(*(_shown(_figures(answer), "dim") for answer in answers))
    return table


def _below(answers: list[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(show_edge=False, show_header=False, expand=True)
    table.add_column(overflow="fold", max_width=NARROWEST)
    table.add_column(ratio=1, overflow="fold")
    for answer in answers:
        table.add_row(_shown(answer["model"]), _shown(f"{answer['text']}\n[{_figures(answer)}]"))
    return table


def _shown(text: str, style: str = "") -> Any:
    from rich.text import Text

    from swarm.cli import screen

    return Text(screen.for_people(text), style=style)


def _figures(answer: dict[str, Any]) -> str:
    from swarm.views.comparison import figures_of

    return figures_of(answer) + ("" if answer["ended"] == "stop" else ", cut")


def write_page(comparison: Comparison, path: Path) -> None:
    from swarm.files import write_named
    from swarm.views.comparison import page

    title = f"{' and '.join(comparison.models[1:]) or 'answers'} beside {comparison.about['base']}"
    write_named(path, page(comparison, title))
    print(f"wrote {path}", file=sys.stderr)
