"""`swarm rate`: say how good an answer of a served adapter was, and what it should have been."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from swarm.cli.options import As, Form, Idem, Run, agent_of, tell

ROW = frozenset({"answer", "rating", "because", "better"})
"""What a line may hold."""


def add_to(app: typer.Typer) -> None:
    app.command()(rate)


def rate(
    answer: Annotated[
        str,
        typer.Argument(metavar="ANSWER", help="the `id` of a response; `-` reads JSON lines with answer and rating"),
    ],
    rating: Annotated[float | None, typer.Argument(metavar="[RATING]", help="1, the worst, to 5")] = None,
    *,
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="the reason; it stands in the log")] = "",
    better: Annotated[
        str | None, typer.Option("--better", metavar="TEXT", help="what the answer should have been; not in the log")
    ] = None,
    author: As = None,
    run: Run = None,
    idem: Idem = None,
    form: Form = None,
) -> None:
    """Rate an answer of `swarm serve` or `swarm chat`.

    Where the ratings are low, a run with `feedback:` trains a stream anew and tries it on some of the requests.
    """
    from swarm.errors import UserError

    if (rating is None) != (answer == "-"):
        raise UserError("RATING", "belongs to one answer", "write `swarm rate ANSWER 1..5`, or `swarm rate -` alone")
    one: dict[str, Any] = {"answer": answer, "rating": rating, "because": because, "better": better}
    rows = list(_rows()) if rating is None else [one]
    if not rows:
        raise UserError("standard input", "holds no rating", 'write a line {"answer": ID, "rating": 1 to 5} for each')
    with agent_of(run, author) as agent:
        for row in rows:
            why, named = row.get("because") or "", row.get("better")
            seq = agent.rate(row["answer"], row["rating"], why=why, better=named, idem=idem)
            data = {"seq": seq, "kind": "rate", "answer": row["answer"], "by": agent.name}
            tell(f"{seq} rate {row['answer']} {row['rating']:g}", data, form)


def _rows() -> Iterator[dict[str, Any]]:
    """Of standard input.  Raises UserError, and then none is recorded."""
    from swarm.errors import UserError

    for number, line in enumerate(filter(str.strip, sys.stdin), start=1):
        try:
            row = json.loads(line)
            wrong = not isinstance(row, dict) or not {"answer", "rating"} <= row.keys() <= ROW
            wrong = wrong or not all(isinstance(row.get(key) or "", str) for key in ("answer", "because", "better"))
            wrong = wrong or isinstance(row["rating"], bool) or not 1 <= row["rating"] <= 5
        except (ValueError, TypeError, RecursionError):
            wrong = True
        if wrong:
            fix = 'write {"answer": ID, "rating": 1 to 5}, with "because" and "better" where you have them'
            raise UserError(f"line {number}", "is no rating", fix)
        yield row
