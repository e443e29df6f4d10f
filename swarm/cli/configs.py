"""`swarm check, show, certify, plan, env`: everything before a run is started."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swarm.cli.flags import TAKES_SETTINGS
from swarm.cli.options import Config, Form, Overrides, form_words
from swarm.spawning import module_command

if TYPE_CHECKING:
    from swarm.planning.starting import Plan


def add_to(app: typer.Typer) -> None:
    app.command(context_settings=TAKES_SETTINGS)(check)
    app.command()(show)
    app.command(context_settings=TAKES_SETTINGS)(plan)
    app.command()(certify)
    app.command()(env)


def check(config: Config, overrides: Overrides = None, *, form: Form = None) -> None:
    """Check a config, its files, bases and GPUs.

    As data, what is wrong comes on standard output too: each problem with file, line, column, key and fix.
    """
    from swarm.cli import screen
    from swarm.planning import starting
    from swarm.printable import printable

    with _problems_as_data(form):
        read, notes = starting.check(config, overrides or [])
    if form is not None:
        screen.print_data({"problems": [], "run": read.run.dumped(), "origins": read.origins, "notes": notes}, form)
        return
    for note in notes:
        print(printable(note if note.startswith("warning: ") else f"note: {note}"), file=sys.stderr)
    print(f"{config}: ok, {len(read.run.streams)} streams: {', '.join(read.run.streams)}")


@contextlib.contextmanager
def _problems_as_data(form: bool | None) -> Iterator[None]:
    """What is wrong is printed as data, where data is asked for; the exit status stays that of an error."""
    from swarm.cli import screen
    from swarm.config.tree import problem_rows
    from swarm.errors import UserError, UserErrors

    try:
        yield
    except (UserError, UserErrors) as error:
        if form is None:
            raise
        screen.print_data({"problems": problem_rows(error)}, form)
        raise typer.Exit(2) from None


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
    import subprocess

    from swarm import config as configs
    from swarm.errors import UserError
    from swarm.planning import starting

    read = configs.load(config, overrides or [], cwd=Path.cwd())
    starting.require_training_extra()
    name = stream or next(iter(read.run.streams))
    if name not in read.run.streams:
        raise UserError("--stream", f"no stream {name!r}", f"there is {', '.join(read.run.streams)}")
    with json_file(read.run.streams[name].model_dump(mode="json")) as file:
        command = module_command("trainer.show", "--settings", file, "--rows", str(rows), *form_words(form))
        sys.exit(subprocess.run(command, check=False).returncode)


@contextlib.contextmanager
def json_file(value: object) -> Iterator[str]:
    """Settings, for a process of the trainer."""
    import json
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        file.write(json.dumps(value))
        file.flush()
        yield file.name


def certify(
    config: Config,
    overrides: Overrides = None,
    *,
    steps: Annotated[int, typer.Option("--steps", min=1, help="at most so many optimizer steps of each stream")] = 20,
    stream: Annotated[list[str] | None, typer.Option("--stream", help="only this stream; may be given several times")] = None,
    fp64: Annotated[bool, typer.Option("--fp64", help="compute bases that are not in 4 bits in float64")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="each stream in forward passes of its own: bit-equal to alone")] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, mps, or gpu0; bases are computed in float32 there too")] = "cpu",
    form: Form = None,
) -> None:  # fmt: skip
    """Prove that streams trained together go as each goes alone.

    Each is trained beside the others, alone, and with PEFT in a plain loop, on the first rows of its data.
    Exit status 1: a difference is above its bound.
    """
    import subprocess

    from swarm import config as configs
    from swarm.errors import UserError
    from swarm.planning import starting

    read = configs.load(config, overrides or [], cwd=Path.cwd())
    starting.require_training_extra()
    streams = read.run.streams
    for name in stream or ():
        if name not in streams:
            raise UserError("--stream", f"no stream {name!r}", f"there is {', '.join(streams)}")
    chosen = {name: streams[name].model_dump(mode="json") for name in stream or streams}
    words = ["--steps", str(steps), "--device", device, *(["--fp64"] if fp64 else []), *(["--exact"] if exact else [])]
    with json_file(chosen) as file:
        command = module_command("trainer.certify", "--settings", file, *words, *form_words(form))
        sys.exit(subprocess.run(command, check=False).returncode)


def plan(
    config: Config,
    overrides: Overrides = None,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="say where every setting comes from")] = False,
    roadmap: Annotated[
        bool,
        typer.Option("--roadmap", help="phases, data, hyper-parameters, hours and cost; of a run also what it took"),
    ] = False,
    form: Form = None,
) -> None:
    """What a run would need and where its streams would go.

    Nothing is started.
    """
    from swarm.cli import plans, screen
    from swarm.planning import starting

    made = starting.plan(config, overrides or [], check_disk=False)
    if roadmap:
        _print_roadmap(config, made, form)
        return
    if form is not None:
        screen.print_data(plans.data(made), form)
        return
    screen.tell(plans.text(made))
    if explain:
        print()
        screen.tell(made.config.dump())


def _print_roadmap(path: Path, made: Plan, form: bool | None) -> None:
    from swarm.cli import screen
    from swarm.log import Log
    from swarm.planning import roadmap
    from swarm.rundir import RunFolder
    from swarm.state import fold

    run = RunFolder(path)
    state = fold(Log(run.log).entries()) if run.is_run else None
    found = roadmap.costs(made.config.run, made.rows(), made.layout, state)
    if form is None:
        screen.tell(roadmap.markdown(made.config.run, found, state))
    else:
        screen.print_data(roadmap.data(made.config.run, found, state), form)


def env(
    *,
    check: Annotated[bool, typer.Option("--check", help="compute on the device: does it agree with the CPU?")] = False,
    form: Form = None,
) -> None:
    """Print versions, devices and memory, for a bug report."""
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
    checked = _checked_device() if check else None
    if form is not None:
        free = surroundings.free_memory_bytes()
        found = {"gpus": names_of_gpus, "device": checked}
        screen.print_data({**facts, "free_memory_bytes": free, **found, "packages": packages}, form)
    else:
        shown = {
            **facts,
            "free memory": units.size(surroundings.free_memory_bytes()),
            "gpus": ", ".join(names_of_gpus) or "none",
            **({"device": _device_line(checked)} if checked else {}),
            **packages,
        }
        print(screen.columns([[name, str(value)] for name, value in shown.items()]))
    if checked and not checked["agrees"]:
        raise typer.Exit(1)


def _checked_device() -> dict[str, Any]:
    """What torch computes on the device that a training would take.  Raises UserError where it cannot be asked."""
    import json
    import subprocess

    from swarm.errors import UserError
    from swarm.planning import machine_checks

    if missing := machine_checks.missing_packages():
        raise UserError("--check", f"{missing[0]} is not installed", "pip install 'toonswarm[train]'")
    done = subprocess.run(module_command("trainer.device_check"), stdout=subprocess.PIPE, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        fix = "see the messages above; without a working torch nothing is trained"
        raise UserError("--check", "the device cannot be asked", fix) from error
    return found


def _device_line(found: dict[str, Any]) -> str:
    """`mps: agrees with the CPU (float32 to 2e-07, bfloat16 to 0.004), no float64`."""
    agrees = "agrees with the CPU" if found["agrees"] else "DISAGREES with the CPU"
    measured = ", ".join(f"{name} to {value:.1g}" for name, value in found["differences"].items())
    return f"{found['device']}: {agrees} ({measured})" + ("" if found["float64"] else ", no float64")
