"""The files of a base's tokenizer, as they are copied beside prepared rows and adapters; nothing in them names a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

PATTERNS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
)
TEMPLATE = "chat_template.jinja"
"""transformers takes it before the template in tokenizer_config.json."""


def copy(base_folder: Path, out: Path, template: object = None) -> None:
    """With the template of the training, where it is one text."""
    for path in (found for pattern in PATTERNS for found in base_folder.glob(pattern)):
        shutil.copyfile(path, out / path.name)
    if isinstance(template, str):
        (out / TEMPLATE).write_text(template, encoding="utf-8")
