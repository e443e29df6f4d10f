"""Answers that people may rate, in `feedback/` of a run folder, and the canary that is to give some of them.

The folder is there where the config has `feedback:`.  A server keeps its newest answers in it, a rating moves one to those that were
rated, and a stream that is trained anew gets its rows from there.  Texts stand here, readable by the owner alone, and not in the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from swarm.errors import UserError
from swarm.files import read_json, write_whole
from swarm.plainfiles import make_folder, remove_file
from swarm.rundir import RunFolder, is_name

FOLDER, UNRATED, RATED, CANARY = "feedback", "answers", "rated", "canary.json"
ID = re.compile(r"[A-Za-z0-9-]{1,64}")
KEPT = 1000
"""Answers that wait for a rating; beyond them the oldest are removed."""
LONGEST = 1 << 20
"""Characters of an answer with its messages."""
OWNER = 0o600


def prepare(folder: RunFolder) -> None:
    """Make the folders.  Raises OSError."""
    for name in (UNRATED, RATED):
        make_folder(folder.path / FOLDER / name, mode=0o700)


def run_of(adapter: Path) -> RunFolder | None:
    """The run whose adapter stands in that folder, if its answers may be rated."""
    parents = list(adapter.absolute().parents)
    at = 0 if adapter.name == "promoted" else 2
    return RunFolder(parents[at]) if len(parents) > at and (parents[at] / FOLDER / UNRATED).is_dir() else None


# ---- answers ---------------------------------------------------------------------------------------------------------


def keep(folder: RunFolder, answer: str, stream: str, turns: Sequence[Mapping[str, Any]], text: str) -> None:
    """Keep an answer to these messages until it is rated, unless they are longer than anything that is trained on.  Raises OSError."""
    found = json.dumps({"stream": stream, "messages": list(turns), "answer": text}, ensure_ascii=False)
    if len(found) <= LONGEST:
        write_whole(_place(folder, UNRATED, answer), found, mode=OWNER)


def forget_oldest(folder: RunFolder) -> None:
    """Remove the answers beyond those that are kept.  Raises OSError."""
    found = sorted((folder.path / FOLDER / UNRATED).glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEPT]:
        remove_file(path)


def kept(folder: RunFolder, answer: str) -> dict[str, Any]:
    """The answer with its stream and messages.  Raises UserError."""
    for which in (RATED, UNRATED):
        if (path := _place(folder, which, answer)).is_file():
            return dict(read_json(path))
    if not (folder.path / FOLDER).is_dir():
        raise UserError(folder.name, "keeps no answers", "write `feedback:` into its config")
    fix = f"the newest {KEPT} answers of `swarm serve` wait for a rating"
    raise UserError(answer, f"{folder.name} keeps no such answer", fix)


def keep_rated(folder: RunFolder, answer: str, found: Mapping[str, Any]) -> None:
    """Keep it with those that were rated.  Raises UserError where it is longer than anything that is trained on, OSError."""
    text = json.dumps(found, ensure_ascii=False)
    if len(text) > LONGEST:
        raise UserError(answer, f"is longer than {LONGEST:,} characters with what it should have been", "shorten that")
    write_whole(_place(folder, RATED, answer), text, mode=OWNER)


def forget_waiting(folder: RunFolder, answer: str) -> None:
    """It is rated and waits no more."""
    with suppress(FileNotFoundError):
        remove_file(_place(folder, UNRATED, answer))


def write_rows(folder: RunFolder, name: str, answers: Iterable[str]) -> Path:
    """A file of chat rows of these answers, each with what it should have been where that is known.  Raises UserError for none."""
    there = [path for answer in answers if (path := _place(folder, RATED, answer)).is_file()]
    if not there:
        raise UserError(name, f"none of its answers is in {FOLDER}/{RATED}", "put them back")
    path = folder.path / FOLDER / f"{name}.jsonl"
    write_whole(path, "".join(f"{json.dumps(_row(one), ensure_ascii=False)}\n" for one in there), mode=OWNER)
    return path


def _row(path: Path) -> dict[str, Any]:
    found = read_json(path)
    try:
        answer = {"role": "assistant", "content": found.get("better", found["answer"])}
        return {"messages": [*found["messages"], answer]}  # type: ignore[misc]
    except (KeyError, TypeError) as error:
        raise UserError(str(path), "is no answer with its messages", "remove it") from error


def _place(folder: RunFolder, which: str, answer: str) -> Path:
    """Raises UserError for what is no id."""
    if not ID.fullmatch(answer):
        raise UserError(
            answer or "''", "is no id of an answer", "take the `id` of a response, or what `swarm chat` prints"
        )
    return folder.path / FOLDER / which / f"{answer}.json"


# ---- the canary ------------------------------------------------------------------------------------------------------


def write_canary(folder: RunFolder, canary: Mapping[str, Any] | None) -> None:
    """What servers are to do: `stream`, `share` and `seed` of the draws; None: there is no canary.  Raises OSError."""
    write_whole(folder.path / FOLDER / CANARY, json.dumps(canary or {}))


def canary(folder: RunFolder) -> dict[str, Any]:
    """Empty where there is none.  Raises UserError."""
    path = folder.path / FOLDER / CANARY
    found = dict(read_json(path)) if path.is_file() else {}
    stream, share, seed = (found.get(key) for key in ("stream", "share", "seed"))
    is_whole = isinstance(stream, str) and is_name(stream) and isinstance(share, float) and type(seed) is int
    if found and not is_whole:
        raise UserError(str(path), "names no canary", "remove it: the coordinator writes it anew")
    return found
