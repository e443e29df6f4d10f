"""python -m trainer.judge.evaluation --data FILE --metrics a,b [...] ADAPTER... [--json | --toon]

Adapters of one base and the bare base on the same rows, outside any run: figures, differences to the base with what chance would do,
and every answer in a file of samples.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from swarm import figures
from swarm.errors import UserError
from swarm.files import write_named
from swarm.policy import chance
from swarm.policy.batching import batch_key
from swarm.printable import printable
from swarm.settings import StreamSettings
from swarm.surroundings import open_output
from toon import encode
from trainer.device import place_of, set_environment
from trainer.quiet import quieten
from trainer.ship.sources import QUANTISED, Source, Sources, sources_of
from trainer.show import add_forms, print_form

if TYPE_CHECKING:
    from trainer.judge.examination import Graded
    from trainer.judge.measurement import Evaluated

LEVEL = 0.01
"""Of the intervals of differences to the base."""
LABELLED = "labelled"
"""The type of rows that encoders of pairs are judged by; any other is for their decoders."""


# ---- what is printed -------------------------------------------------------------------------------------------------


def document(found: Evaluated) -> dict[str, Any]:
    """Figures as a table with a row for each of them, and the differences to the base."""
    measured = [
        {"adapter": name, **{figure: round(value, 6) for figure, value in graded.figures.items()}}
        for name, graded in zip(found.names, found.graded, strict=True)
    ]
    base, names = found.graded[0], found.names[1:]
    against = [
        row for name, graded in zip(names, found.graded[1:], strict=True) for row in _against_base(name, graded, base)
    ]
    return {
        "rows": len(found.examination.rows),
        "asked": len(found.examination.asked),
        "figures": measured,
        "against_base": against,
    }


def _against_base(name: str, own: Graded, base: Graded) -> list[dict[str, Any]]:
    """For each figure that has a better end: positive where the adapter is better."""
    columns = {
        "eval_loss": ([row.nats / row.tokens for row in own.losses], [row.nats / row.tokens for row in base.losses])
    }
    columns |= {figure: (values, base.scores[figure]) for figure, values in own.scores.items()}
    weights = {"eval_loss": [row.tokens for row in own.losses]}
    rows = []
    for figure, (mine, theirs) in columns.items():
        if (goal := figures.of(figure).goal) and mine:
            sign = -1.0 if goal == "min" else 1.0
            gaps = zip(mine, theirs, weights.get(figure) or [1] * len(mine), strict=True)
            one = chance.difference([(sign * (a - b), w) for a, b, w in gaps], LEVEL, random.Random(0))
            numbers = {
                "difference": one.value,
                "low": one.low,
                "high": one.high,
                "p": one.p,
                "detectable": one.detectable,
                "rows": one.rows,
            }
            rows.append({"adapter": name, "figure": figure, **{key: round(value, 6) for key, value in numbers.items()}})
    return rows


def samples(found: Evaluated) -> list[dict[str, Any]]:
    """One for each question: prompt, expected answer, those of base and adapters, and the scores of each."""
    rows = []
    for at, question in enumerate(found.examination.asked):
        row: dict[str, Any] = {"prompt": question.prompt, "expected": question.expected}
        for name, result, graded in zip(found.names, found.results, found.graded, strict=True):
            row[name] = result.answers[at].text
            row |= {f"{name} {figure}": round(values[at], 6) for figure, values in graded.scores.items()}
        rows.append(row)
    return rows


def _write_samples(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    from trainer.judge.examination import jsonl

    write_named(path, encode(list(rows)) + "\n" if path.suffix == ".toon" else jsonl(rows))


def _table(shown: dict[str, Any]) -> str:
    names = list(shown["figures"][0])
    head = ["", *(figures.of(name).label for name in names[1:])]
    lines = [
        [row["adapter"], *(figures.of(name).text(row.get(name)) for name in names[1:])] for row in shown["figures"]
    ]
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [head, *lines]
    ]
    return "\n".join([*table, *map(_against_base_line, shown["against_base"])])


def _against_base_line(row: dict[str, Any]) -> str:
    ends = row["low"], row["high"]
    word, (low, high) = ("better", ends) if row["difference"] >= 0 else ("worse", (-ends[1], -ends[0]))
    chance_ = "" if row["p"] <= LEVEL else "; may be chance"
    few = f" on {row['rows']} rows" if row["rows"] < chance.FEW_ROWS else ""
    return (
        f"{row['adapter']} against base, {figures.of(row['figure']).label}: {word} by {abs(row['difference']):.4g}{few} "
        f"({1 - LEVEL:.0%} interval {low:.3g} to {high:.3g}, detectable from {row['detectable']:.3g} on{chance_})"
    )


# ---- the command line ------------------------------------------------------------------------------------------------


def settings_from(arguments: argparse.Namespace, sources: Sources) -> StreamSettings:
    """Raises UserError for metrics that there are not."""
    data = {"path": str(arguments.data.resolve()), "type": arguments.type}
    values = {
            "base_model": sources.base, "adapter": QUANTISED if sources.quantised else "lora", "datasets": [data], "test_datasets": [data],
            "metrics": _metrics(arguments.metrics or "exact_match,ended"), "eval_rows": arguments.rows,
            "eval_max_new_tokens": arguments.max_new_tokens, "temperature": arguments.temperature, "top_p": arguments.top_p,
            "eval_seed": arguments.seed, "sequence_len": arguments.sequence_len, "json_schema": arguments.schema,
        }  # fmt: skip
    try:
        return StreamSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = OPTIONS.get(str(first["loc"][-1]), f"--{first['loc'][-1]}".replace("_", "-"))
        raise UserError(option, f"{first['input']!r:.60} cannot be taken", first["msg"].lower()) from error


def settings_of_encoders(arguments: argparse.Namespace, encoders: Sequence[Source]) -> StreamSettings:
    """Those that they were trained with, on the rows that are named.  Raises UserError where they have not one base and the same labels."""
    from trainer.ship.encoders import settings_of

    found = [settings_of(source, trust_remote_code=False) for source in encoders]
    labels = {(batch_key(one).bases, *getattr(one, "labels", ())) for one in found}
    if len(labels) > 1 or not hasattr(found[0], "labels"):
        what = (
            "the encoders have several bases or lists of labels" if len(labels) > 1 else "the encoder tells no labels"
        )
        raise UserError("--type", what, "name pairs whose encoders tell the same labels of labelled rows")
    data = found[0].datasets[0].model_copy(update={"path": str(arguments.data.resolve()), "limit": None})
    metrics = _metrics(arguments.metrics or "accuracy,f1")
    given = {"datasets": [data], "test_datasets": [data], "metrics": metrics, "eval_rows": arguments.rows}
    return found[0].model_copy(update=given)


def _metrics(listed: str) -> list[str]:
    """Raises UserError for what is none."""
    metrics = [name for name in listed.split(",") if name]
    known = ["eval_loss", *(name for name in figures.measurable() if figures.of(name).of != "retention")]
    if unknown := [name for name in metrics if name not in known]:
        raise UserError("--metrics", f"{unknown[0]!r} is no metric here", f"take some of {', '.join(known)}")
    return [name for name in metrics if name != "eval_loss"]


OPTIONS = {
    "eval_rows": "--rows", "eval_max_new_tokens": "--max-new-tokens", "eval_seed": "--seed", "base_model": "--base", "json_schema": "--schema",
}  # fmt: skip
"""The option for a setting that has another name here."""


def _chosen(arguments: argparse.Namespace, sources: Sources) -> tuple[Sequence[Source], StreamSettings]:
    """What is judged by rows of this type, and as what it was trained."""
    if arguments.type != LABELLED:
        if tied := next((source.name for source in sources.adapters if source.is_tied), None):
            what = "its models are tied, and adapters are judged here on the base alone"
            raise UserError(tied, what, "its scores are those of its run: `swarm status`")
        return sources.adapters, settings_from(arguments, sources)
    encoders = [replace(source, name=name) for name, source in sources.encoders.items()]
    if not encoders:
        raise UserError("--type", "labelled rows are for encoders of pairs (`method: duo`)", "name a published pair")
    return encoders, settings_of_encoders(arguments, encoders)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.judge.evaluation", description="Adapters and base on the same rows."
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--type", default="auto")
    parser.add_argument("--metrics", help="default: exact_match,ended; of labelled rows accuracy,f1")
    parser.add_argument("--base")
    parser.add_argument("--rows", type=int, default=64, help="rows that are answered; all give their loss")
    parser.add_argument("--max-new-tokens", type=int, default=128)
    parser.add_argument("--sequence-len", type=int, default=512)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schema")
    parser.add_argument("--samples", type=Path, help="write every answer there: .jsonl or .toon")
    parser.add_argument("--device", help="cpu, mps, or gpu0; default: a GPU where there is one")
    add_forms(parser)
    parser.add_argument("adapters", metavar="ADAPTER", nargs="+", help="[NAME=]FOLDER")
    arguments = parser.parse_args(argv)
    open_output()
    set_environment(arguments.device)
    quieten()
    try:
        place = place_of(arguments.device, Path.cwd())
        if not arguments.data.is_file():
            raise UserError("--data", f"there is no file {arguments.data}", "name a file with rows")
        sources = sources_of(arguments.adapters, arguments.base, pairs=True)
        judged, settings = _chosen(arguments, sources)
        from trainer.judge.measurement import evaluated

        found = evaluated(judged, settings, place)
        if arguments.samples:
            _write_samples(arguments.samples, samples(found))
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    shown = document(found)
    if not print_form(shown, arguments.form):
        print(printable(_table(shown)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
