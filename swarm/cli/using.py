"""`swarm compare, chat, serve`: use a base and its adapters.  The models live in a process of the trainer's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.adapters import adapter_folder, scaled_adapter
from swarm.cli.options import Device, Form, NamedRun, form_words
from swarm.spawning import module_command

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="[BASE] ADAPTER...",
        help="adapters' folders, runs (what they promoted) or streams; NAME=FOLDER names one",
    ),
]
Base = Annotated[str | None, typer.Option("--base", help="the base; default: the one that the adapters name")]
Quantised = Annotated[
    bool | None, typer.Option("--4bit/--no-4bit", help="the base in NF4; default: as the adapters were trained")
]
RemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="run code that the base brings")]
Vectors = Annotated[
    list[str] | None,
    typer.Option("--control-vector", metavar="FILE[:SCALE]", help="add them on all models; may be given several times"),
]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control-adapter", metavar="ADAPTER[:SCALE]", help="let it act on all models; may be given several times"
    ),
]
System = Annotated[str | None, typer.Option("--system", help="a system message before each prompt")]
MaxNewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", metavar="N", min=1, help="cut an answer after N tokens")
]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0.0, help="0: always the likeliest token")]
TopP = Annotated[
    float | None, typer.Option("--top-p", min=0.0, max=1.0, help="sample from the likeliest with this probability")
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="of the sampling")]


def add_to(app: typer.Typer) -> None:
    for command in (compare, chat, serve):
        app.command()(command)


def compare(
    models: Models,
    *,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", metavar="TEXT", help="ask this; may be given several times; `-` reads lines of standard input")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="lines of text, or JSON lines with prompt or messages")] = None,
    system: System = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="also write a page of one file to send around")] = None,
    base: Base = None,
    device: Device = None,
    quantised: Quantised = None,
    control_vector: Vectors = None,
    control_adapter: Controls = None,
    trust_remote_code: RemoteCode = False,
    run: NamedRun = None,
    form: Form = None,
) -> None:  # fmt: skip
    """Put the same prompts to a base and its adapters.

    Without --prompt and --prompts 21 short tasks are asked.
    """
    from swarm.cli.comparing import compared, write_page
    from swarm.errors import UserError

    if html is not None and not html.absolute().parent.is_dir():
        raise UserError(str(html), "its folder is not there", "make it first")
    words = _model_words(
        models, run, base, device, quantised, control_vector, control_adapter, trust_remote_code=trust_remote_code
    )
    words += _options({"--system": system, "--max-new-tokens": max_new_tokens, "--temperature": temperature, "--top-p": top_p, "--seed": seed, "--prompts": prompts})  # fmt: skip
    words += [f"--prompt={text}" for text in _typed(prompt or [])]
    comparison = compared(words, form)
    if html is not None:
        write_page(comparison, html)


def chat(
    models: Models,
    *,
    system: System = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    base: Base = None,
    device: Device = None,
    quantised: Quantised = None,
    control_vector: Vectors = None,
    control_adapter: Controls = None,
    trust_remote_code: RemoteCode = False,
    run: NamedRun = None,
) -> None:
    """Talk to adapters and their base; /help inside.

    Without a terminal each line of standard input is a message.
    """
    words = _model_words(
        models, run, base, device, quantised, control_vector, control_adapter, trust_remote_code=trust_remote_code
    )
    words += _options({"--system": system, "--max-new-tokens": max_new_tokens, "--temperature": temperature, "--top-p": top_p, "--seed": seed})  # fmt: skip
    _become("chat", words)


def serve(
    models: Models,
    *,
    host: Annotated[str, typer.Option("--host", help="where to listen; other machines reach it only if you name another")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free")] = 8000,
    key_file: Annotated[Path | None, typer.Option("--key-file", metavar="FILE", help="the key that clients must send; or in SWARM_SERVE_KEY")] = None,
    route: Annotated[list[str] | None, typer.Option("--route", metavar="TASK=MODEL", help="what the model `auto` is for a request's `task`")] = None,
    encoder: Annotated[list[str] | None, typer.Option("--encoder", metavar="[NAME=]MODEL", help="an encoder: /v1/embeddings, and labels if it has a head")] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="if a request names none; the API's default is 1")] = 1.0,
    most_waiting: Annotated[int, typer.Option("--most-waiting", min=1, help="answers that wait at once; beyond that 429")] = 32,
    most_bytes: Annotated[int, typer.Option("--most-bytes", min=1, help="of a request; beyond that 413")] = 8 << 20,
    base: Base = None,
    device: Device = None,
    quantised: Quantised = None,
    control_vector: Vectors = None,
    control_adapter: Controls = None,
    trust_remote_code: RemoteCode = False,
    run: NamedRun = None,
    form: Annotated[bool | None, typer.Option("--json/--toon", help="print address and models: a line of JSON, or TOON")] = None,
) -> None:  # fmt: skip
    """Serve a base and its adapters as OpenAI does.

    /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/models; the request's `model` chooses.
    """
    words = _model_words(
        models, run, base, device, quantised, control_vector, control_adapter, trust_remote_code=trust_remote_code
    )
    words += _options({"--host": host, "--port": port, "--key-file": key_file, "--temperature": temperature, "--most-waiting": most_waiting, "--most-bytes": most_bytes})  # fmt: skip
    words += [
        *(f"--route={word}" for word in route or []),
        *(f"--encoder={word}" for word in encoder or []),
        *form_words(form),
    ]
    _become("serve", words)


# ---- what the trainer is given ---------------------------------------------------------------------------------------


def _model_words(
    models: list[str], run: str | None, base: str | None, device: str | None, quantised: bool | None, vectors: list[str] | None,
    controls: list[str] | None, *, trust_remote_code: bool,
) -> list[str]:  # fmt: skip
    from swarm.errors import UserError

    if device not in {None, "cpu", "mps"} and not (device.startswith("gpu") and device[3:].isdecimal()):
        raise UserError("--device", f"{device!r} is no device", "take cpu, mps, or gpu0 as `swarm env` lists them")
    words = [adapter_folder(word, run) for word in models]
    options = _options({"--base": base, "--device": device})
    options += [f"--control-vector={word}" for word in vectors or []]
    options += [f"--control-adapter={scaled_adapter(word, run)}" for word in controls or []]
    options += [] if quantised is None else ["--4bit" if quantised else "--no-4bit"]
    return [*words, *options, *(["--trust-remote-code"] if trust_remote_code else [])]


def _options(values: dict[str, object]) -> list[str]:
    """`--option=value` for those that are set: a value may begin with a dash."""
    return [f"{option}={value}" for option, value in values.items() if value is not None]


def _typed(prompts: list[str]) -> list[str]:
    return [line for text in prompts for line in (_lines_of_input() if text == "-" else [text])]


def _lines_of_input() -> list[str]:
    return [line for line in sys.stdin.read().splitlines() if line.strip()]


def _become(module: str, words: list[str]) -> None:
    """The trainer's process takes this one's place, so that the terminal's keys and signals reach it alone."""
    command = module_command(f"trainer.ship.{module}", *words)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  no shell is wanted
