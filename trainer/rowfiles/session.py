"""A run's answers or a saved chat as rows to train on: what was answered wrongly, with the answer that was expected.

The questions of a run are held-out rows: who trains on them must be judged on others, and the command says so.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarm import rundir
from swarm.errors import UserError
from swarm.plainfiles import read_text
from trainer.data.bad import NotARow
from trainer.data.messages import turns_of
from trainer.rowfiles.output import Made, jsonl, refuse_existing, written

SAMPLES, CONFIG = "samples.jsonl", "adapter_config.json"
MARK, LONGEST = "QUESTION", 1 << 16
ANSWERS = "asked held-out rows: judge who trains on them on other rows (`test_datasets`)"


def run(arguments: Namespace) -> Made:
    refuse_existing(arguments.out, force=arguments.force)
    files = [file for word in arguments.inputs for file in _files(word, arguments.stream)]
    rows: dict[str, dict[str, Any]] = {}
    read = of_run = 0
    unclear = 0
    for file in files:
        question_of = _question_of(file)
        for where, values in _lines(file):
            read += 1
            of_run += "expected" in values
            row = _row(where, values, wanted_right=arguments.all)
            if row and "instruction" in row and file.name == SAMPLES:
                row["instruction"] = question_of(row["instruction"])
                unclear += not row["instruction"]
            if row and row.get("instruction", " "):
                rows.setdefault(json.dumps(row, sort_keys=True), row)
    if not rows:
        raise UserError(
            "session", f"none of {read} answers is to be trained on", "give --all to take the right ones too"
        )
    warnings = [f"{of_run} of {read} lines {ANSWERS}"] if of_run else []
    warnings += [f"{unclear} prompts have more than one message and were left out"] if unclear else []
    counts = {"read": read, "rows": len(rows), "held_out": of_run, "left_out": unclear}
    manifest = written("session", arguments.out, jsonl(rows.values()), force=arguments.force, inputs=files, **counts)
    return Made(manifest, f"{arguments.out}: {len(rows)} rows of {read} answers", warnings)


def _files(word: str, stream: str | None) -> list[Path]:
    """A file itself; of a run the samples of its streams."""
    if Path(word).is_file():
        return [Path(word)]
    folder = rundir.find(word).path
    found = sorted(folder.glob(f"streams/{stream or '*'}/{SAMPLES}"))
    if not found:
        what = f"holds no {SAMPLES}" + (f" of {stream}" if stream else "")
        raise UserError(str(folder), what, "wait for its evaluation, or set `eval_rows` above 0")
    return found


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path.resolve()).split("\n"), start=1):
        if line.strip():
            try:
                values = json.loads(line)
            except ValueError:
                values = None
            if not isinstance(values, dict):
                raise UserError(f"{path}:{number}", "no JSON object", "name a run, or a file that `/save` wrote")
            yield f"{path}:{number}", values


def _question_of(samples: Path) -> Callable[[str], str]:
    """What makes the user's words of a rendered prompt: the base's template wrote the rest.  Empty where there is more than one message."""
    adapter = samples.parent / "adapter"
    if samples.name != SAMPLES or not (adapter / CONFIG).is_file():
        return str
    from trainer import bases
    from trainer.data.prompt import Asker, read_prompt
    from trainer.loading import load_tokenizer

    prompt = read_prompt(adapter)
    if prompt is None or prompt.chat_template is None:
        return str
    base = json.loads(read_text((adapter / CONFIG).resolve()))["base_model_name_or_path"]
    tokenizer = load_tokenizer(bases.folder_of(base))
    ids = Asker(tokenizer, replace(prompt, template=None, no_input_template=None), LONGEST).question(MARK)
    before, _, after = str(tokenizer.decode(ids, skip_special_tokens=True)).strip().partition(MARK)

    def question(text: str) -> str:
        inner = text.removeprefix(before).removesuffix(after)
        whole = before + inner + after == text
        return inner if whole and not (before and before in inner) else ""

    return question


def _row(where: str, values: dict[str, Any], *, wanted_right: bool) -> dict[str, Any] | None:
    """A row to train on, or None where the answer was right."""
    if {"prompt", "expected", "adapter"} <= values.keys():
        right = values["adapter"] == values["expected"] or values.get("exact_match") == 1
        return {"instruction": values["prompt"], "response": values["expected"]} if wanted_right or not right else None
    if {"instruction", "response"} <= values.keys():
        return {"instruction": values["instruction"], "response": values["response"]}
    if "messages" in values:
        try:
            return {"messages": turns_of(values["messages"])}
        except NotARow as error:
            raise UserError(where, error.what, error.fix) from error
    what = f"neither an answer of a run nor a chat (it has {', '.join(values)})"
    raise UserError(where, what, "name a run, or a file that `/save` wrote")
