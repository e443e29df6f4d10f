"""A style to learn, of our own writing: short advice as a heading, a bold point in each of a few bullets, and one closing line.

python configs/data/make_style.py      # writes configs/data/style/*.jsonl again, equal on every machine

`train` and `eval` are chats; `pairs` and `eval_pairs` have for each prompt the advice in that style (chosen) and the same sentences as
plain text of nearly the same length (rejected), so that length is not what is preferred; `labels` and `eval_labels` are the same for
methods that want single answers with a label; `topics` and `eval_topics` have a text and the field that it is about.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "style"
SEED = 7
HELD_OUT_TOPICS = 2
"""Of each field: prompts of training and held-out rows are about other things."""

FIELDS = {
    "garden": (
        ("a tomato plant", "a rose", "a lawn", "a herb pot", "a hedge", "an apple tree", "a fern", "a lily"),
        (
            ("Light", "give it six hours of sun"), ("Water", "water it in the morning"), ("Soil", "loosen the soil once a week"),
            ("Food", "feed it every second week"), ("Pests", "look under the leaves"), ("Shape", "cut what is dry"),
        ),
    ),
    "kitchen": (
        ("a soup", "a loaf of bread", "a salad", "a pot of rice", "an omelette", "a stew", "a pie", "a jam"),
        (
            ("Heat", "start low and raise it late"), ("Salt", "salt in small steps"), ("Time", "set a timer and keep to it"),
            ("Taste", "taste before you serve"), ("Order", "cut all before you begin"), ("Rest", "let it stand five minutes"),
        ),
    ),
    "desk": (
        ("a letter", "a report", "a talk", "a meeting", "a plan", "a budget", "an exam", "a diary"),
        (
            ("Aim", "write the goal in one line"), ("Length", "keep it to one page"), ("Order", "put the main point first"),
            ("Check", "read it aloud once"), ("Dates", "name a day for each step"), ("Help", "ask one person for a look"),
        ),
    ),
}  # fmt: skip
QUESTIONS = (
    "How do I get {} right?",
    "What should I know about {}?",
    "Give me advice on {}.",
    "I have trouble with {}. What helps?",
)
CLOSINGS = ("Start small.", "One step a day is enough.", "Write down what worked.")

Row = dict[str, object]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, rows in files().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (FOLDER / f"{name}.jsonl").write_text(text, encoding="utf-8")


def files() -> dict[str, list[Row]]:
    train, held_out = list(_advice("train")), list(_advice("eval"))
    made: dict[str, list[Row]] = {}
    for prefix, rows in (("", train), ("eval_", held_out)):
        made |= {
            f"{prefix}pairs": [
                {"prompt": question, "chosen": styled, "rejected": plain} for question, styled, plain, _ in rows
            ],
            f"{prefix}labels": [
                {"prompt": question, "completion": answer, "label": good}
                for question, styled, plain, _ in rows
                for answer, good in ((styled, True), (plain, False))
            ],
            f"{prefix}topics": [{"text": f"{question} {plain}", "label": field} for question, _, plain, field in rows],
        }
    return {"train": [_chat(*row[:2]) for row in train], "eval": [_chat(*row[:2]) for row in held_out], **made}


def _advice(split: str) -> Iterator[tuple[str, str, str, str]]:
    """Question, the answer in the style, the same as plain text, and the field, in an order of their own."""
    draws = random.Random(f"{SEED}/{split}")
    rows = []
    for field, (topics, points) in FIELDS.items():
        for topic in topics[:-HELD_OUT_TOPICS] if split == "train" else topics[-HELD_OUT_TOPICS:]:
            for question in QUESTIONS:
                for count in (2, 3):
                    chosen, closing = draws.sample(points, count), draws.choice(CLOSINGS)
                    rows.append(
                        (f"{question.format(topic)} Name {count} points.", *_answers(topic, chosen, closing), field)
                    )
    draws.shuffle(rows)
    yield from rows


def _answers(topic: str, points: list[tuple[str, str]], closing: str) -> tuple[str, str]:
    bullets = "\n".join(f"- **{name}**: {what}" for name, what in points)
    plain = " ".join(f"As for {name.lower()}, {what}." for name, what in points)
    return f"## {topic[:1].upper()}{topic[1:]}\n{bullets}\n{closing}", f"With {topic}: {plain} {closing}"


def _chat(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


if __name__ == "__main__":
    main()
