"""`swarm data ...`: files of rows made from files of rows, and rows checked before a run.  The work is the trainer's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from swarm.cli.options import Config, Form, Overrides, form_words
from swarm.spawning import module_command

Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="a new file; FILE.manifest.json says what it was made from")
]
Force = Annotated[bool, typer.Option("--force", help="replace an existing file")]
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="files of rows, patterns or names on the hub")]
Type = Annotated[str, typer.Option("--type", help="how a row is read, as in a config")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="of the rows that are drawn and of their order")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="at most so many rows")]

room = typer.Typer(no_args_is_help=True, help="Make, mix and check files of rows.")


def add_to(app: typer.Typer) -> None:
    app.add_typer(room, name="data")


@room.command()
def mix(
    files: Annotated[list[str], typer.Argument(metavar="FILE[:WEIGHT]...", help="e.g. core.jsonl:3 guard.jsonl:1")],
    out: Out,
    *,
    strategy: Annotated[Literal["repeat", "sample"], typer.Option("--strategy", help="repeat smaller files, or use a part of larger ones")] = "repeat",
    dedupe: Annotated[bool, typer.Option("--dedupe/--no-dedupe", help="take equal rows once, of the first file that has them")] = True,
    shuffle: Annotated[bool, typer.Option("--shuffle/--no-shuffle")] = True,
    seed: Seed = 42,
    limit: Limit = None,
    type_: Type = "auto",
    force: Force = False,
    form: Form = None,
) -> None:  # fmt: skip
    """Mix files by weight; equal rows are taken out before, so that the ratio holds."""
    words = ["--strategy", strategy, *([] if dedupe else ["--no-dedupe"]), *([] if shuffle else ["--no-shuffle"])]
    _make("mix", files, out, force, form, [*words, "--seed", str(seed), "--type", type_, *_limited(limit)])


@room.command()
def markdown(files: Files, out: Out, *, limit: Limit = None, type_: Type = "auto", force: Force = False, form: Form = None) -> None:  # fmt: skip
    """Rewrite answers as a heading with bullets."""
    _make("markdown", files, out, force, form, ["--type", type_, *_limited(limit)])


@room.command()
def guard(out: Out, *, force: Force = False, form: Form = None) -> None:
    """Write twelve rows of clean answers, against tags and clutter."""
    _make("guard", [], out, force, form, [])


@room.command()
def pairs(
    files: Files,
    out: Out,
    by: Annotated[Literal["truncate", "prefix", "base", "adapter"], typer.Option("--by", help="where the rejected answer comes from")],
    *,
    length_matched: Annotated[bool, typer.Option("--length-matched", help="give it as many words as the chosen one")] = False,
    base: Annotated[str | None, typer.Option("--base", help="a folder, a hub name or tiny-toon")] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", metavar="FOLDER")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 160,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0)] = 0.3,
    top_p: Annotated[float, typer.Option("--top-p", min=0.001, max=1.0)] = 0.9,
    seed: Seed = 42,
    limit: Limit = None,
    type_: Type = "auto",
    force: Force = False,
    form: Form = None,
) -> None:  # fmt: skip
    """Make pairs of a chosen and a rejected answer.

    Rejected are beginnings of the chosen answers, or what the base or an adapter answers itself.
    """
    words = ["--by", by, *(["--length-matched"] if length_matched else []), *(["--base", base] if base else [])]
    words += ["--adapter", str(adapter)] if adapter else []
    words += ["--max-new-tokens", str(max_new_tokens), "--temperature", str(temperature), "--top-p", str(top_p)]
    _make("pairs", files, out, force, form, [*words, "--seed", str(seed), "--type", type_, *_limited(limit)])


@room.command()
def toon(files: Files, out: Out, *, force: Force = False, form: Form = None) -> None:
    """Write rows of any format as TOON, or as JSON lines."""
    _make("toon", files, out, force, form, [])


@room.command()
def session(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="runs, or files that `/save` of `swarm chat` wrote")],
    out: Out,
    *,
    stream: Annotated[str | None, typer.Option("--stream", help="only this stream of a run")] = None,
    every: Annotated[bool, typer.Option("--all", help="right answers as well")] = False,
    force: Force = False,
    form: Form = None,
) -> None:  # fmt: skip
    """Make rows of a run's wrong answers, or of a chat."""
    words = [*(["--stream", stream] if stream else []), *(["--all"] if every else [])]
    _make("session", runs, out, force, form, words)


@room.command()
def check(config: Config, overrides: Overrides = None, *, stream: Annotated[str | None, typer.Option("--stream")] = None, form: Form = None) -> None:  # fmt: skip
    """Prepare a config's rows as a run would, and say what was found.

    Nothing is kept.  Exit status 2: the run would refuse them.
    """
    from swarm import config as configs
    from swarm.cli.configs import json_file
    from swarm.errors import UserError
    from swarm.planning import starting

    read = configs.load(config, overrides or [], cwd=Path.cwd())
    starting.require_training_extra()
    streams = read.run.streams
    if stream and stream not in streams:
        raise UserError("--stream", f"no stream {stream!r}", f"there is {', '.join(streams)}")
    chosen = {name: streams[name].model_dump(mode="json") for name in ([stream] if stream else streams)}
    with json_file(chosen) as file:
        command = module_command("trainer.rowfiles.checking", "--settings", file, *form_words(form))
        sys.exit(subprocess.run(command, check=False).returncode)


def _limited(limit: int | None) -> list[str]:
    return ["--limit", str(limit)] if limit else []


def _make(name: str, inputs: list[str], out: Path, force: bool, form: bool | None, words: list[str]) -> None:
    given = [name, "--out", str(out), *(["--force"] if force else []), *form_words(form), *words]
    command = module_command("trainer.rowfiles", *given, *(["--", *inputs] if inputs else []))
    sys.exit(subprocess.run(command, check=False).returncode)
