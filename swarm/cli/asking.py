"""`swarm ask`: the same questions to a base and to an adapter of a run."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from swarm.cli.options import Device, Form, Run, form_words
from swarm.spawning import module_command


def add_to(app: typer.Typer) -> None:
    app.command()(ask)


def ask(
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT...", help="what to ask; `-` reads standard input.  Words without quotes are one question"
        ),
    ],
    run: Run = None,
    *,
    stream: Annotated[
        str | None, typer.Option("--stream", help="this stream's adapter instead of the promoted one")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens",
            metavar="N",
            min=1,
            help="cut an answer after N tokens; by default after `eval_max_new_tokens`",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="classification or embedding: texts for an encoder, of a pair its own; else the decoder answers",
        ),
    ] = None,
    device: Device = None,
    form: Form = None,
) -> None:
    """Put the same questions to base and adapter."""
    import json
    import subprocess
    import tempfile

    from swarm import config, rundir
    from swarm.errors import UserError
    from swarm.log import Log
    from swarm.state import fold
    from swarm.weights import check_adapter

    folder = rundir.find(run)
    state = fold(Log(folder.log).entries())
    name = stream or (state.promoted.ref if state.promoted else None)
    if name is None or name not in state.streams:
        raise UserError(
            folder.name, f"no stream {name!r}" if name else "nothing was promoted", "name one with --stream"
        )
    adapter = folder.stream(name) / "adapter" if stream else folder.promoted
    try:
        check_adapter(adapter)
    except FileNotFoundError:
        raise UserError(str(adapter), "has no adapter yet", "wait until the stream is validated") from None
    settings = config.of_run(folder, state.added).streams[name]
    texts = [sys.stdin.read() if prompt == "-" else prompt for prompt in _questions(prompts)]
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(settings.model_dump(mode="json")))
        file.flush()
        command = module_command(
            "trainer.ask", "--run", str(folder.path), "--adapter", str(adapter),
            "--settings", file.name, *(["--task", task] if task else []),
            *(["--max-new-tokens", str(tokens)] if tokens else []), *(["--device", device] if device else []),
            *form_words(form), "--", *texts,
        )  # fmt: skip
        sys.exit(subprocess.run(command, check=False).returncode)


def _questions(words: list[str]) -> list[str]:
    """Words that a shell has taken apart are one question; where one holds a space, each was quoted as a question of its own."""
    if "-" in words or any(any(map(str.isspace, word)) for word in words):
        return words
    return [" ".join(words)]
