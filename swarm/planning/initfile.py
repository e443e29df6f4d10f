"""The config that `swarm init` writes: annotated, for the data files in the folder, ready to run.

Composes the text only; the command line renders some rows with it and writes the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.planning.columns import columns_in
from swarm.policy.row_types import guessed
from swarm.settings import DATA_SUFFIXES, ending_of

FOLDERS = (".", "data")
"""Folders that are searched for data files, in this order."""
HELD_OUT = re.compile(r"(?:^|[-_.])(?:dev|eval|test|val|valid|validation|held[-_]?out)(?:[-_.]|$)", re.IGNORECASE)
"""Names of files with held-out rows."""

OF_A_PROGRAM = re.compile(
    r"requirements|constraints|licen[cs]e|readme|notice|changelog|robots|cmakelists", re.IGNORECASE
)
"""Names of text files that are no data."""


@dataclass(frozen=True, slots=True)
class Found:
    """A data file and how its rows are read."""

    path: str
    settings: tuple[tuple[str, str], ...]
    """`type`, and the columns whose names are not the default."""


def text(folder: Path, base_model: str = "tiny-toon") -> str:
    """The config for a folder: with its data files, or with a placeholder."""
    files = look_at(folder, data_files(folder))
    train = next((found for found in files if not _is_held_out(found)), None) or texts(folder)
    held_out = next((found for found in files if _is_held_out(found)), None) if train else None
    return TEMPLATE.format(
        name=_name(folder),
        base_model=json.dumps(base_model) if not re.fullmatch(r"[A-Za-z][\w./-]*", base_model) else base_model,
        datasets=_datasets(train),
        held_out=_held_out(held_out),
    )


def data_files(folder: Path) -> list[Path]:
    """Files that may hold rows, sorted; those with `train` in their name first."""
    found = [
        file
        for place in FOLDERS
        for file in sorted((folder / place).glob("*"))
        if ending_of(file) in {*DATA_SUFFIXES} - {".txt"} and file.is_file()  # any text may lie in a folder
    ]
    return sorted(found, key=lambda file: (file.parent != folder, "train" not in file.name.lower(), file.name))


def look_at(folder: Path, files: Sequence[Path]) -> list[Found]:
    """How each file is read, by its columns; files without usable rows (package.json, for example) are left out.

    The trainer reads them in a process of its own, since only it knows the formats.
    """
    if not files:
        return []
    columns = columns_in(files)
    looked = ((file, guessed(columns.get(str(file), []))) for file in files)
    return [Found(file.relative_to(folder).as_posix(), settings) for file, settings in looked if settings]


def texts(folder: Path) -> Found | None:
    """All `.txt` files of a folder, each a row, where no other file has rows and no text of a program lies among them."""
    for place in FOLDERS:
        stems = [file.stem for file in (folder / place).glob("*.txt") if file.is_file()]
        if len(stems) > 1 and not any(OF_A_PROGRAM.match(stem) for stem in stems):
            return Found((Path(place) / "*.txt").as_posix(), (("type", "text"),))
    return None


def _is_held_out(found: Found) -> bool:
    return HELD_OUT.search(Path(found.path).stem) is not None


def _name(folder: Path) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._")[:40] or "first"


def _entry(found: Found) -> str:
    settings = (("path", found.path), *found.settings)
    return "{" + ", ".join(f"{key}: {_quoted(value)}" for key, value in settings) + "}"


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[A-Za-z][\w./-]*", value) else json.dumps(value, ensure_ascii=False)


def _datasets(train: Found | None) -> str:
    types = "# chatml | alpaca | prompt_completion | text | toon; auto: by its columns"
    if train is None:
        example = Found("data/train.jsonl", (("type", "chatml"),))
        endings = ", ".join(DATA_SUFFIXES)
        return f"  # No data file was found here: name yours.  {endings}, or owner/name on the hub.\n  datasets:\n    - {_entry(example)}   {types}"
    return f"  datasets:\n    - {_entry(train)}   {types}"


def _held_out(found: Found | None) -> str:
    if found is None:
        return "  val_set_size: 0.05                # held-out rows: a share below 1, or a number of rows"
    return f"  test_datasets:                    # held-out rows; without them: val_set_size, a share\n    - {_entry(found)}"


TEMPLATE = """\
# swarm check FILE     find mistakes                   swarm show FILE   your rows as the model reads them
# swarm plan  FILE     memory, devices, steps          swarm run  FILE   train; q leaves it running
# Any setting from the command line: swarm run FILE streams.wide.lora_r=64 max_steps=200
name: {name}

defaults:                           # for every stream; a stream's own settings win
  base_model: {base_model}             # tiny-toon (included), a folder, or a name on the hub
{datasets}
{held_out}
  sequence_len: 512                 # tokens; longer rows are cut and counted
  adapter: lora                     # lora | qlora (the base in 4 bits: less memory); use_dora, use_rslora: true | false
  micro_batch_size: 2               # sequences per forward pass
  gradient_accumulation_steps: 4    # forward passes per optimizer step
  num_epochs: 1                     # passes over the rows; max_steps or max_minutes end it sooner
  learning_rate: 2e-4
  lr_scheduler: cosine              # linear | cosine | constant | constant_with_warmup | polynomial | rms_ratio
  warmup_ratio: 0.03                # share of the steps
  save_steps: 50                    # optimizer steps between checkpoints
  seed: 0

streams:                            # one fine-tune each, trained at once; write what differs
  narrow: {{lora_r: 8, lora_alpha: 16}}
  wide: {{lora_r: 32, lora_alpha: 64}}

placement:
  gpus: all                         # all | none | [0, 1]; without a GPU the CPU is used

promotion:                          # which stream wins
  metric: eval_loss                 # eval_loss | exact_match, on the held-out rows
  must_beat: base                   # base: a stream that is no better than the bare base is not promoted; or nothing
"""
