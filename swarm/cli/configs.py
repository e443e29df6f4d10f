"""`swarm init, check, show, plan, env`: everything before a run is started."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.options import Config, Form, Overrides, form_words
from swarm.spawning import module_command


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(check)
    app.command()(show)
    app.command()(plan)
    app.command()(env)


def init(path: Annotated[Path, typer.Argument(help="the file to write")] = Path("swarm.yaml")) -> None:
    """Write a config to start from, fitted to the data files here.

    Never over an existing file.
    """
    from swarm.errors import UserError
    from swarm.planning import initfile

    text = initfile.text(Path.cwd())
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(str(path), "exists", "name another file: `swarm init other.yaml`") from None
    except OSError as error:
        raise UserError(str(path), f"cannot be written ({error.strerror})", "name another place") from None
    print(f"wrote {path}; next: swarm check {path}, swarm plan {path}, swarm run {path}", file=sys.stderr)


def check(config: Config, overrides: Overrides = None, *, form: Form = None) -> None:
    """Check a config, its files, bases and GPUs; nothing is started."""
    from swarm.cli import screen
    from swarm.planning import starting

    read = starting.check(config, overrides or [])
    if form is not None:
        screen.print_data({"run": read.run.dumped(), "origins": read.origins}, form)
        return
    print(f"{config}: ok, {len(read.run.streams)} streams: {', '.join(read.run.streams)}")


def show(
    config: Config,
    overrides: Overrides = None,
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="rows to show")] = 3,
    stream: Annotated[str | None, typer.Option("--stream", help="as this stream sees them; default: the first")] = None,
    form: Form = None,
) -> None:
    """Show some rows as the model will see them.

    What is supervised, how many tokens they have, what would be cut.
    """
    import json
    import subprocess
    import tempfile

    from swarm import config as rooms
    from swarm.errors import UserError
    from swarm.planning import starting

    read = rooms.load(config, overrides or [], cwd=Path.cwd())
    starting.require_training_extra()
    name = stream or next(iter(read.run.streams))
    if name not in read.run.streams:
        raise UserError("--stream", f"no stream {name!r}", f"there is {', '.join(read.run.streams)}")
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(read.run.streams[name].model_dump(mode="json")))
        file.flush()
        command = module_command("trainer.show", "--settings", file.name, "--rows", str(rows), *form_words(form))
        sys.exit(subprocess.run(command, check=False).returncode)


def plan(
    config: Config,
    overrides: Overrides = None,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="say where every setting comes from")] = False,
    form: Form = None,
) -> None:
    """What a run would need and where its streams would go.

    Nothing is started.
    """
    from swarm.cli import screen
    from swarm.planning import starting

    made = starting.plan(config, overrides or [], check_disk=False)
    if form is not None:
        screen.print_data(screen.plan_data(made), form)
        return
    screen.tell(screen.plan_text(made))
    if explain:
        print()
        screen.tell(made.config.dump())


def env(*, form: Form = None) -> None:
    """Versions, devices and memory: what to put into a bug report."""
    import platform
    from importlib import metadata

    from swarm import surroundings, units
    from swarm.cli import screen
    from swarm.planning import gpus

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    names = (
        "toonswarm",
        "torch",
        "transformers",
        "peft",
        "trl",
        "bitsandbytes",
        "datasets",
        "pyzmq",
        "msgpack",
        "textual",
    )
    names_of_gpus = [gpu.name for gpu in gpus.found()]
    facts = {"python": platform.python_version(), "platform": platform.platform(), "cores": surroundings.cores()}
    packages = {name: version(name) for name in names}
    if form is not None:
        free = surroundings.free_memory_bytes()
        screen.print_data({**facts, "free_memory_bytes": free, "gpus": names_of_gpus, "packages": packages}, form)
        return
    shown = {
        **facts,
        "free memory": units.size(surroundings.free_memory_bytes()),
        "gpus": ", ".join(names_of_gpus) or "none",
        **packages,
    }
    print(screen.columns([[name, str(value)] for name, value in shown.items()]))
