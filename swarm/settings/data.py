"""Of a data set: where its rows are and how one is read."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field

from swarm.keys import Positive, Settings

DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".toon", ".txt")
"""Endings of the files that rows are read from."""
PACKED = (".gz", ".zst", ".bz2", ".xz", ".zip", ".tar", ".tgz")
"""Of what holds such files."""


def ending_of(path: PurePath | str) -> str:
    """By which a file's reader is chosen; capital letters say nothing."""
    return PurePath(path).suffix.lower()


def wrong_ending(path: PurePath) -> tuple[str, str] | None:
    """What is wrong with a file that no reader is for, and the fix."""
    if (ending := ending_of(path)) in DATA_SUFFIXES:
        return None
    return f"{path} is no {', '.join(DATA_SUFFIXES)} file", f"{'unpack' if ending in PACKED else 'convert'} it"


PLAIN = ("text", "document", "labelled")
"""Types of rows without a prompt."""
TokenIds = str | int | list[int] | None
"""Text, a token's id or several; unset: the base's own."""


class Dataset(Settings):
    path: str
    """A file or a pattern (`data/*.jsonl`): .jsonl, .json, .csv, .tsv, .parquet, .arrow, .toon or .txt (a row a file); or a dataset of the hub, `owner/name`.

    Files are read row by row; .json and .toon ones whole: at most 128 MiB, with 2 to 15 times that in memory.
    """
    type: Literal["auto", "chatml", "alpaca", "prompt_completion", "text", "document", "toon", "labelled"] = "auto"
    """How a row is read: chat messages; instruction/input/output; two columns; plain text; documents, which are cut into sequences of `sequence_len` tokens; prompt_completion from a TOON table; a text with its label; auto: what the columns of the first row fit."""
    split: str = "train"
    """Which split of a hub dataset."""
    messages: str = "messages"
    """Column with the messages (`chatml`): role and content, or from and value as ShareGPT writes them."""
    system: str | None = "system"
    """Column with the system message of a row, where it has one, on a base with a chat template (`chatml`, `alpaca`, `prompt_completion`, `toon`); null: none is read."""
    tools: str = "tools"
    """Column with the tools that a conversation may call (`chatml`)."""
    prompt: str = "prompt"
    """Column with the prompt (`prompt_completion`, `toon`): text, or messages, which the completion goes on with."""
    completion: str = "completion"
    """Column with the completion (`prompt_completion`, `toon`)."""
    rejected: str | None = None
    """Column with a worse completion of the same prompt, for `method: dpo`, `kto` or `orpo` (`prompt_completion`, `toon`; of `chatml` the whole conversation with the worse answer); held-out rows are judged by the better one."""
    text: str = "text"
    """Column with the text (`text`, `document`: all of it is supervised; `labelled`)."""
    text_pair: str | None = None
    """Column with a second text, where the label is of both (`labelled`)."""
    label: str = "label"
    """Column with the label (`labelled`), for `method: classify`."""
    document_prefix: TokenIds = None
    """Put before each document (`document`): text that is tokenised with it, or ids; unset: nothing."""
    document_suffix: TokenIds = None
    """Put behind each document (`document`), in the same forms; unset: the base's end token; '': nothing."""
    max_tokens: Positive | None = None
    """Train on random whole documents of at most so many tokens together (`document`)."""
    separator: str = "\n"
    """Between prompt and completion, on a base without a chat template."""
    prompt_template: str | None = None
    """The prompt, with `{column}` where a row's value belongs, or `alpaca`: Stanford's (`alpaca`, `prompt_completion`, `toon`); unset: the prompt is the column's text alone."""
    no_input_template: str | None = None
    """The same for rows whose column `input` is empty; unset: such rows are bad ones if `prompt_template` names it."""
    system_prompt: str | None = None
    """The system message of chats and pairs that have none, on a base with a chat template; unset: the stream's."""
    group_by: str | None = None
    """Column whose equal values (a document, an author) stay together, in training or held out; unset: each row for itself, and equal rows together."""
    task: str | None = None
    """Column with the task of a row, for `controller: {kind: unified, merge: ...}`, which trains an adapter for each task while they are in conflict."""
    limit: Positive | None = None
    """Take only so many rows of this dataset: the first, or with `shuffle` random ones."""
    shuffle: bool = False
    """Let `limit` take random rows.  Each epoch's order is random without it, and documents are cut in a random order."""
    shuffle_seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Of these random rows, and of the order of documents."""
    control_class: Literal[-1, 0, 1] = 1
    """Of a control adapter: 1 is text to go towards, -1 text to go away from, 0 neutral text, whose rows are +1 or -1 by their content."""
    prefix_class: Literal[-1, 0, 1] = 0
    """Of the tokens that stand before the text itself; a position has the class of the token that it predicts."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its part among all datasets' training rows, 3 beside 1 say; unset everywhere: as many as there are, unset beside others: 1."""
