"""`swarm eval`: adapters and their base on rows of a file, outside any run.  The work is the trainer's, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.adapters import adapter_folder
from swarm.cli.options import Device, Form, NamedRun, form_words
from swarm.spawning import module_command


def add_to(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    adapters: Annotated[list[str], typer.Argument(metavar="ADAPTER...", help="their folders, runs (what they promoted) or streams, of one base")],
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="rows with the expected answers")],
    *,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="A,B", help="figures; docs/settings.md, `metrics`")] = None,
    type_: Annotated[str, typer.Option("--type", help="how a row is read, as in a config; labelled: by the encoders of pairs")] = "auto",
    base: Annotated[str | None, typer.Option("--base", help="default: the one that the adapters name")] = None,
    rows: Annotated[int, typer.Option("--rows", min=0, help="rows that are answered; all give their loss")] = 64,
    tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="cut an answer after so many")] = 128,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="0: the likeliest token")] = 0.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.001, max=1.0, help="share that tokens are drawn from")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the tokens that are drawn")] = 0,
    length: Annotated[int, typer.Option("--sequence-len", min=8, help="longer rows are cut")] = 512,
    schema: Annotated[Path | None, typer.Option("--schema", help="JSON schema for the metric json_schema")] = None,
    samples: Annotated[Path | None, typer.Option("--samples", metavar="FILE", help="every answer, as .jsonl or .toon")] = None,
    device: Device = None,
    run: NamedRun = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Measure adapters and their base on the same rows.

    It prints each figure, and the difference to the base with what chance would do.
    """
    options = {
        "--data": data, "--type": type_, "--metrics": metrics, "--base": base, "--rows": rows, "--max-new-tokens": tokens,
        "--temperature": temperature, "--top-p": top_p, "--seed": seed, "--sequence-len": length, "--schema": schema,
        "--samples": samples, "--device": device,
    }  # fmt: skip
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    command = module_command(
        "trainer.judge.evaluation", *words, *form_words(form), "--", *(adapter_folder(word, run) for word in adapters)
    )
    sys.exit(subprocess.run(command, check=False).returncode)
