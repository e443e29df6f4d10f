"""Command lines for every command of today, made from the typer app: a command that is added is tried without being named here.

A required argument gets a value by its name, and the run is the folder; a name that has no value here fails the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from swarm.cli import app

RUN, CONFIG, OUT = "RUN", "CONFIG", "OUT"
"""Stand for the run folder, its config, and a new place beside it."""
VALUES: dict[str, tuple[str, ...]] = {
    "adapter": (f"{RUN}/promoted",), "adapters": (f"{RUN}/promoted",), "answer": ("chatcmpl-1", "2"), "base": ("tiny-toon",), "because": ("why",), "by": ("truncate",),
    "between": ("ada,bob", "--answer-seconds", "0.2"), "changes": ("lora_r=4",), "config": (CONFIG,), "data": (f"{RUN}/rows.jsonl",), "goal": (CONFIG,),
    "files": (f"{RUN}/rows.jsonl",), "inputs": (f"{RUN}/rows.jsonl",), "like": ("narrow",), "models": (f"{RUN}/promoted",), "name": ("eve",), "new": ("newer",), "of": ("1",), "out": (OUT,), "pairs": (f"{RUN}/pairs.toon",),
    "prompts": ("say 1",), "question": ("well?",), "ref": ("wide/validate",), "runs": (RUN,), "repository": ("ada/toons",), "stream": ("narrow",), "text": ("hello",), "to": ("bob",),
    "token": ("1",), "why": ("why",), "words": (),
}  # fmt: skip
"""By the name of a parameter that has to be given."""
MORE: dict[str, tuple[tuple[str, ...], ...]] = {
    "status": (("--json",),), "log": (("--json",), ("verify",)), "ledger": (("--json",),), "lineage": (("--json",),), "runs": (("--promoted",),),
    "export": (("--what", "metrics", "--format", "csv"), ("--what", "events", "--format", "jsonl"), ("--what", "session", "--format", "json")),
    "post": (("--as", "ada"),), "promote": (("--why", "x", "--force"),), "notify": (("--test",),), "prune": (("--yes", "--keep", "0", "--whole-runs"),),
    "replay": (("--at", "5"),), "plan": (("--explain",),), "digest": (("--as", "ada"),),
}  # fmt: skip
"""Other ways in which a command is typed."""
ALWAYS: dict[str, tuple[str, ...]] = {
    "stop": ("--no-wait",), "resume": ("--detach",), "run": ("--detach", "--again"), "tune": ("--detach",), "research": ("--detach",), "wait": ("--timeout", "0.2", "--as", "ada"),
    "watch": ("--plain",), "yield": ("--cores", "1"), "serve": ("--port", "0"), "prune": ("--yes", "--keep", "0"), "promote": ("--why", "x"), "inbox": ("--as", "ada"),
    "claim": ("--as", "ada"), "done": ("--as", "ada", "--file", __file__), "approve": ("--as", "ada"), "push": ("--yes",), "mcp": ("--as", "ada"),
}  # fmt: skip
"""So that a command needs no terminal, asks nothing and comes back."""
RUN_NAMES = {"run", "named", "runs", "into"}
QUICK_ROOMS = {
    "agents",
    "joining",
    "looking",
    "members",
    "notifying",
    "rating",
    "reading",
    "record",
    "running",
    "talking",
    "tidying",
    "yielding",
}
LONG = {"run", "watch", "mcp"}


def is_quick(name: str) -> bool:
    """Whether the command does its work in its own process, without the trainer, and comes back; any other needs a process of its own."""
    commands: Any = get_command(app)
    room = getattr(commands.commands[name].callback, "__module__", "").rpartition(".")[2]
    return room in QUICK_ROOMS and name not in LONG


def command_lines(folder: Path) -> dict[str, list[tuple[str, ...]]]:
    """By command, all command lines that are tried on this run folder."""
    places = {RUN: str(folder), CONFIG: str(folder / "config.yaml"), OUT: str(folder.parent / "made")}
    commands: Any = get_command(app)
    return {
        name: [tuple(_placed(word, places) for word in words) for words in _lines(name, command)]
        for name, command in commands.commands.items()
    }


def _lines(name: str, command: Any) -> Iterator[tuple[str, ...]]:
    needed = [parameter for parameter in command.params if parameter.required]
    arguments = [word for one in needed if not one.opts[-1].startswith("-") for word in VALUES[one.name]]
    options = [word for one in needed if one.opts[-1].startswith("-") for word in (one.opts[-1], *VALUES[one.name])]
    run = next((one.opts for one in command.params if one.name in RUN_NAMES and one.opts[-1].startswith("-")), None)
    where = (run[0], RUN if "--runs" not in run else f"{RUN}/..") if run else ()
    if hasattr(command, "commands"):  # a group has its own commands
        for below, one in command.commands.items():
            yield from ((name, *words) for words in _lines(below, one))
        return
    for more in ((), *MORE.get(name, ())):
        yield (name, *arguments, *options, *where, *_without(ALWAYS.get(name, ()), more), *more)


def _without(always: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    """Nothing twice."""
    return () if set(always) & set(more) else always


def _placed(word: str, places: dict[str, str]) -> str:
    head, _, rest = word.partition("/")
    return "/".join([places[head], rest]) if head in places and rest else places.get(word, word)
