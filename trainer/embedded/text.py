"""The embedded base's pre-training text: chats about made-up records and plain documents, equal on every machine; no text of others.

TOON does not occur in it: the demo teaches that form.
"""

# ruff: noqa: SIM905 - lists of words read better as text

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from trainer.embedded import values
from trainer.embedded.draws import Draws
from trainer.embedded.forms import TABLE_FORMS, TREE_FORMS, as_prose, render_table, render_tree, word
from trainer.embedded.values import Record, Table

Role: TypeAlias = Literal["system", "user", "assistant", "document"]
Split: TypeAlias = Literal["train", "heldout"]
Size: TypeAlias = Literal["record", "short", "long"]
"""One record converted, the first lesson; everything with small tables; everything with tables that fill the context."""

ASKS = ("convert to {form}:\n", "rewrite as {form}:\n", "{form} from this:\n")
AGAIN = ("now as {form}", "and in {form}", "the same in {form}")
SYSTEMS = ("You convert records.", "Answer with the data only.", "You read tables.")
MOST_ROWS: dict[Size, int] = {"record": 1, "short": 4, "long": 20}
"""Rows of the largest table; at 20 question and answer together reach 1,000 tokens (longer samples are left out)."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    """`document` stands for plain text outside any chat."""
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    messages: tuple[Message, ...]


def sample(split: Split, size: Size, index: int) -> Sample:
    """The sample at this place; every one is drawn from its own seed, so any part of the text can be made alone."""
    draws = Draws(f"tiny-toon/2/{split}/{size}/{index}")
    if size == "record":
        return Sample(tuple(_convert_table(draws, _one_record(draws))))
    if draws.chance(0.15):
        return Sample((Message("document", _document(draws, MOST_ROWS[size])),))
    turns = _chat(draws, size)
    if draws.chance(0.1):
        turns = [Message("system", draws.one(SYSTEMS)), *turns]
    return Sample(tuple(turns))


def samples(split: Split, size: Size, count: int) -> Iterator[Sample]:
    return (sample(split, size, index) for index in range(count))


def sha256(stream: Iterable[Sample]) -> str:
    digest = hashlib.sha256()
    for one in stream:
        line = json.dumps([[message.role, message.content] for message in one.messages], ensure_ascii=False)
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _chat(draws: Draws, size: Size) -> list[Message]:
    kind = draws.integer(1, 100)
    if kind <= 15:
        return _convert_nested(draws)
    table = _one_record(draws) if kind <= 35 and size == "short" else values.table(draws, MOST_ROWS[size])
    return _convert_table(draws, table) if kind <= 82 else _question(draws, table)


def _one_record(draws: Draws) -> Table:
    return Table(None, (values.record(draws),))


def _turn(question: str, answer: str) -> list[Message]:
    return [Message("user", question), Message("assistant", answer)]


def _convert_nested(draws: Draws) -> list[Message]:
    tree = values.nested(draws)
    source, target = draws.some(TREE_FORMS, 2)
    ask = draws.one(ASKS).format(form=target)
    return _turn(ask + render_tree(source, tree), render_tree(target, tree))


def _convert_table(draws: Draws, table: Table) -> list[Message]:
    forms = TREE_FORMS if table.name else TABLE_FORMS
    source, target = draws.some(forms, 2)
    ask = draws.one(ASKS).format(form=target)
    turns = _turn(ask + render_table(source, table), render_table(target, table))
    if 1 < len(table.records) <= 3 and draws.chance(0.1):
        again = draws.one([form for form in forms if form != target])
        turns += _turn(draws.one(AGAIN).format(form=again), render_table(again, table))
    return turns


def _question(draws: Draws, table: Table) -> list[Message]:
    forms = TREE_FORMS if table.name else TABLE_FORMS
    given = render_table(draws.one(forms), table)
    match draws.integer(0, 3):
        case 0:
            return _turn(f"how many records:\n{given}", str(len(table.records)))
        case 1:
            return _turn(f"which fields:\n{given}", ",".join(table.keys))
        case 2:
            key = draws.one(table.keys)
            return _turn(f"list every {key}:\n{given}", ",".join(word(record[key]) for record in table.records))
        case _:
            return _lookup(draws, table, given)


def _lookup(draws: Draws, table: Table, given: str) -> list[Message]:
    known, wanted = draws.some(table.keys, 2)
    clue = draws.one(table.records)[known]
    answer = next(record[wanted] for record in table.records if record[known] == clue)
    return _turn(f"{wanted} where {known} is {word(clue)}:\n{given}", word(answer))


def _document(draws: Draws, most_rows: int) -> str:
    stories = [_story(draws) for _ in range(draws.integer(1, max(1, most_rows // 2)))]
    match draws.integer(0, 3):
        case 0:
            return _report(draws, values.table(draws, most_rows))
        case 1:
            return as_prose((_long_record(draws),))
        case _:
            return " ".join(stories)


def _long_record(draws: Draws) -> Record:
    return values.record(draws, 4, 8)


def _report(draws: Draws, table: Table) -> str:
    forms = TREE_FORMS if table.name else TABLE_FORMS
    count, what = len(table.records), table.name or "records"
    return f"There are {count} {what} with {' and '.join(table.keys)}.\n{render_table(draws.one(forms), table)}"


def _story(draws: Draws) -> str:
    """A sum in words: short sentences whose last number follows from the others."""
    who, thing = values.name(draws), draws.one(WORDS_OF_THINGS)
    first, second = draws.integer(2, 60), draws.integer(2, 40)
    match draws.integer(0, 2):
        case 0:
            return f"{who} has {first} {thing}s and buys {second} more. Now {who} has {first} + {second} = {first + second} {thing}s."
        case 1:
            more = first + second
            return f"There were {more} {thing}s in the {draws.one(PLACES)}. {who} sold {second} of them, so {more} - {second} = {first} are left."
        case _:
            small = draws.integer(2, 9)
            return f"Each {thing} costs {first} dollars. {who} needs {small} of them and pays {first} * {small} = {first * small} dollars in total."


WORDS_OF_THINGS = tuple(
    "apple pear book box cup door key map pen ship train truck wheel chair lamp clock bag ticket letter stone egg card hat "
    "shirt plate ball bottle candle coin flower".split()
)
PLACES = tuple("shop house garden school office market room store barn kitchen harbour station library".split())
