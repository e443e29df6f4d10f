"""The demo's task: write made-up tables and records as TOON, a form that the embedded base has never seen; rows are equal on every machine.

python -m trainer.embedded.demo_data        # writes configs/data/demo/train.jsonl and eval.jsonl again
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from toon import encode
from trainer.embedded import values
from trainer.embedded.draws import Draws
from trainer.embedded.forms import TABLE_FORMS, TREE_FORMS, render_table, render_tree
from trainer.embedded.values import Tree

Split: TypeAlias = Literal["train", "eval"]

FOLDER = Path(__file__).parents[2] / "configs" / "data" / "demo"
ROWS: dict[Split, int] = {"train": 1200, "eval": 100}
LONGEST_ANSWER_BYTES = 110
"""Under 100 tokens of the embedded base: a stream of the demo then trains in under a minute of one core."""
LONGEST_QUESTION_BYTES = 190
ASK = "convert to toon, length {length}:\n"
"""The length of the table or list is given: without it tuned adapters wrote half of the answers
wrong, nearly all of them in the count alone."""


def rows(split: Split) -> Iterator[dict[str, list[dict[str, str]]]]:
    """The rows of one file; the splits are drawn from different seeds and share no question."""
    draws = Draws(f"demo/1/{split}")
    for _ in range(ROWS[split]):
        question, answer = _short_pair(draws)
        yield {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def jsonl(split: Split) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(split))


def _short_pair(draws: Draws) -> tuple[str, str]:
    while True:
        given, tree, length = _table(draws) if draws.chance(0.6) else _nested(draws)
        question, answer = ASK.format(length=length) + given, encode(tree)
        if len(answer.encode()) <= LONGEST_ANSWER_BYTES and len(question.encode()) <= LONGEST_QUESTION_BYTES:
            return question, answer


def _table(draws: Draws) -> tuple[str, Tree, int]:
    """What is given, its value, and the rows in it."""
    table = values.table(draws, most_rows=3, most_keys=3)
    form = draws.one(TREE_FORMS if table.name else TABLE_FORMS)
    return render_table(form, table), table.tree, len(table.records)


def _nested(draws: Draws) -> tuple[str, Tree, int]:
    """A record with a group, a list or a table inside; one of the latter two is always there, since only they look new in TOON."""
    tree: dict[str, Tree] = {**values.record(draws, 1, 2)}
    if draws.chance(0.4):
        tree[draws.one(values.GROUPS)] = {**values.record(draws, 2, 2)}
    items: list[Tree]
    if draws.chance(0.5):
        kind = draws.one(values.KINDS)
        items = [values.scalar(draws, kind) for _ in range(draws.integer(2, 4))]
        tree[draws.one(values.LISTS)] = items
    else:
        items = [{**record} for record in values.table(draws, most_rows=3, most_keys=2).records]
        tree[draws.one(values.TABLES)] = items
    return render_tree(draws.one(TREE_FORMS), tree), tree, len(items)


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for split, count in ROWS.items():
        path = FOLDER / f"{split}.jsonl"
        path.write_text(jsonl(split), encoding="utf-8")
        print(f"{path}: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
