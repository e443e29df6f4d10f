"""Twelve rows that show clean answers where a small model tends to leave tags, apologies, headings or fences: a fixed list, our own writing.

Each has a system message that names what to avoid, which puts the words into the context: measure it with the metric `banned`.
"""

from __future__ import annotations

from argparse import Namespace

from trainer.rowfiles.output import Made, jsonl, refuse_existing, written

ROWS = (
    ("Answer without tags such as <|user|> or <|assistant|>.", "What does a thermostat do?",
     "It measures the temperature of a room and turns the heating on or off to keep it near the value that you set."),
    ("Do not write Human: or Machine: in the answer.", "How do I keep cut flowers fresh for longer?",
     "Cut the stems at an angle, change the water every two days, and keep the vase away from the sun and from ripe fruit."),
    ('Do not begin with "As an AI language model".', "Which is heavier, a litre of water or a litre of oil?",
     "A litre of water: oil is less dense, which is why it floats."),
    ("Write plain text: no YAML and no code fences.", "Give me the opening hours: Monday to Friday nine to five, Saturday ten to two.",
     "Monday to Friday from 9:00 to 17:00, Saturday from 10:00 to 14:00; closed on Sunday."),
    ('Do not use "### Instruction:" or "### Response:" headers.', "Why is the sky red at sunset?",
     "At sunset the light crosses more air, which scatters blue away and leaves red and orange."),
    ("Do not apologise unless something went wrong.", "Can you shorten this: The meeting has been moved to Thursday at three in the afternoon.",
     "The meeting is now on Thursday at 15:00."),
    ("Answer directly; do not talk about the answer.", "What is the capital of Portugal?", "Lisbon."),
    ("Keep the answer to at most two sentences.", "What is compost?",
     "Compost is plant and kitchen waste that microbes have broken down into dark, crumbly soil. Gardeners use it to feed plants."),
    ("Write words, without ideograms or emoji.", "Congratulate a colleague on finishing a project.",
     "Congratulations on finishing the project: it was careful work, and it shows."),
    ("Do not put a heading over an answer of one sentence.", "When does spring begin in the northern hemisphere?",
     "Spring begins with the equinox around the twentieth of March."),
    ("Use at most two numbered points.", "How do I restart a stuck printer?",
     "1. Switch it off, wait half a minute, and switch it on again.\n2. Remove the waiting jobs, then print one page."),
    ("Do not add links.", "Where can I learn to bake bread?",
     "A public library has good books on it, and many bakeries and adult schools give an introductory evening class."),
)  # fmt: skip
"""System message, question and clean answer."""


def run(arguments: Namespace) -> Made:
    refuse_existing(arguments.out, force=arguments.force)
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in zip(("system", "user", "assistant"), row, strict=True)]}
        for row in ROWS
    ]  # fmt: skip
    manifest = written("guard", arguments.out, jsonl(rows), force=arguments.force, rows=len(rows))
    return Made(manifest, f"{arguments.out}: {len(rows)} rows")
