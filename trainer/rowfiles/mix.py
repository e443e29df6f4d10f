"""Several files as one: equal rows once, then each file its part by weight, then shuffled."""

from __future__ import annotations

import random
from argparse import Namespace
from collections import Counter
from pathlib import Path

from swarm.errors import UserError
from swarm.policy.mixing import in_words, shares
from trainer.data.rows import Row, Text, normalised
from trainer.data.selection import Selection
from trainer.rowfiles.output import Made, jsonl, refuse_existing, written
from trainer.rowfiles.reading import dataset_of, files_read, left_out, record, rows_of


def run(arguments: Namespace) -> Made:
    refuse_existing(arguments.out, force=arguments.force)
    named = [_named(word) for word in arguments.inputs]
    datasets = [dataset_of(path, arguments.type, weight=weight) for path, weight in named]
    left = Counter[str]()
    rows, sources = _rows([[row for _, row in rows_of(dataset, left)] for dataset in datasets])
    _refuse_both_kinds(rows)
    selection = Selection(sources)
    equal = selection.dedupe([normalised(row).encode() for row in rows]) if arguments.dedupe else 0
    for source, (path, _) in enumerate(named):
        if not selection.of_source(source):
            raise UserError(path, "holds no row that earlier files do not have", "take it out, or give --no-dedupe")
    draw = random.Random(arguments.seed)
    parts = shares([weight for _, weight in named])
    if parts:
        try:
            selection.mix(parts, arguments.strategy, arguments.seed, most=arguments.limit)
        except UserError as error:  # in the words of a config
            of = int(error.where.split(".")[1])
            raise UserError(named[of][0], error.what, error.fix.replace("`mix_strategy: ", "`--strategy ")) from error
    elif arguments.limit:
        selection.ablate(arguments.limit, arguments.seed)
    order = [row for row, times in enumerate(selection.times) for _ in range(times)]
    if arguments.shuffle:
        draw.shuffle(order)
    of_each = [sum(sources[row] == source for row in order) for source in range(len(datasets))]
    counts = {"rows": len(order), "equal_rows_left_out": equal, "rows_of_each": of_each, "ratio": in_words(of_each)}
    manifest = written(
        "mix", arguments.out, jsonl(record(rows[row]) for row in order), force=arguments.force, inputs=files_read(datasets),
        seed=arguments.seed, weights=[weight for _, weight in named], strategy=arguments.strategy, **counts,
    )  # fmt: skip
    line = f"{arguments.out}: {len(order)} rows, {in_words(of_each)}; {equal} equal rows were left out"
    return Made(manifest, line, left_out(left))


def _named(word: str) -> tuple[str, float | None]:
    """FILE or FILE:WEIGHT."""
    path, _, weight = word.rpartition(":")
    if not path or Path(word).exists():
        return word, None
    try:
        value = float(weight)
    except ValueError:
        return word, None
    if not 0 < value < float("inf"):
        raise UserError(word, f"{weight} is no weight", "write a number above 0, e.g. core.jsonl:3")
    return path, value


def _rows(of_each: list[list[Row]]) -> tuple[list[Row], list[int]]:
    rows = [row for listed in of_each for row in listed]
    return rows, [source for source, listed in enumerate(of_each) for _ in listed]


def _refuse_both_kinds(rows: list[Row]) -> None:
    plain = sum(isinstance(row, Text) for row in rows)
    if 0 < plain < len(rows):
        raise UserError("mix", "some files hold plain text and others chats", "mix those of one kind")
