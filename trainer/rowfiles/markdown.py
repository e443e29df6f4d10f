"""Answers as short Markdown: a heading from the question, and a bullet for each point or sentence.

Answers that hold code, a table or a heading already are left out and counted: to cut them into sentences would spoil them.
"""

from __future__ import annotations

import re
from argparse import Namespace
from itertools import islice

from swarm.errors import UserError
from trainer.rowfiles.output import Made, jsonl, refuse_existing, written
from trainer.rowfiles.reading import conversation, dataset_of, files_read, rows_of

HEADING_CHARACTERS = 80
BULLET = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+(.*\S)\s*$")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-ZÀ-Þ0-9])")
ABBREVIATIONS = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|approx)|\b[A-Z])\.$")
"""A full stop behind one of these ends no sentence."""
NOT_PROSE = re.compile(r"```|^#{1,6} |^\s*\|.*\|\s*$|^(?: {4}|\t)\S", re.MULTILINE)


def run(arguments: Namespace) -> Made:
    refuse_existing(arguments.out, force=arguments.force)
    datasets = [dataset_of(path, arguments.type) for path in arguments.inputs]
    made, left_out = [], 0
    for where, row in (pair for dataset in datasets for pair in rows_of(dataset)):
        turns = conversation(where, row)
        system = [turn for turn in turns if turn["role"] == "system"][:1]
        asked = next((turn for turn in turns if turn["role"] == "user"), None)
        answer = next((turn for turn in turns if turn["role"] == "assistant" and turn["content"].strip()), None)
        if asked is None or answer is None or NOT_PROSE.search(answer["content"]):
            left_out += 1
            continue
        made.append({"messages": [*system, asked, {"role": "assistant", "content": as_markdown(asked["content"], answer["content"])}]})  # fmt: skip
    made = list(islice(made, arguments.limit or None))
    if not made:
        raise UserError("markdown", f"no row is left ({left_out} hold code, a table or a heading)", "name other files")
    manifest = written(
        "markdown", arguments.out, jsonl(made), force=arguments.force, inputs=files_read(datasets), rows=len(made), left_out=left_out,
    )  # fmt: skip
    return Made(
        manifest, f"{arguments.out}: {len(made)} rows; {left_out} with code, a table or a heading were left out"
    )


def as_markdown(question: str, answer: str) -> str:
    return "\n".join([f"## {_heading(question)}", "", *(f"- {point}" for point in points(answer))])


def _heading(question: str) -> str:
    """The first line, cut at a word."""
    line = " ".join(question.strip().splitlines()[0].lstrip("#").split()) if question.strip() else "Answer"
    if len(line) <= HEADING_CHARACTERS:
        return line
    kept = line[:HEADING_CHARACTERS]
    return (kept.rsplit(" ", 1)[0] if " " in kept else kept).rstrip(" ,;:") + "…"


def points(answer: str) -> list[str]:
    """Bullets as they are, whatever their mark; other lines a sentence each."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", answer):
        plain: list[str] = []
        for line in paragraph.splitlines():
            if bullet := BULLET.match(line):
                found += [*_sentences(" ".join(plain)), bullet[1]]
                plain = []
            else:
                plain.append(line.strip())
        found += _sentences(" ".join(plain))
    return found


def _sentences(text: str) -> list[str]:
    made: list[str] = []
    for part in filter(None, (piece.strip() for piece in SENTENCE_END.split(text))):
        if made and ABBREVIATIONS.search(made[-1]):
            made[-1] += f" {part}"
        else:
            made.append(part)
    return made
