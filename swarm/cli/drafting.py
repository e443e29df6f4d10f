"""`swarm init, schema`: a config to begin with, and what a config may hold."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from swarm.cli.configs import json_file
from swarm.cli.options import Form
from swarm.spawning import module_command

YAML = (".yaml", ".yml")
EMBEDDED = "tiny-toon"
"""The base that ships with the product."""


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(schema)


def init(
    path: Annotated[Path, typer.Argument(help="the file to write")] = Path("swarm.yaml"),
    *,
    base: Annotated[str | None, typer.Option("--base", help="base model: a folder, a hub name or tiny-toon")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="a config of axolotl, TRL, LLaMA-Factory, airoad or qlora-pipe-lite"
        ),
    ] = None,
    form: Form = None,
) -> None:
    """Write a config to start from, for the data files here.

    Some rows are rendered with it first.  Never over an existing file.  With --from, that of another tool becomes ours: what has no
    equal here stands in it as a comment with the reason, or is refused.
    """
    from swarm.cli import screen
    from swarm.errors import UserError

    if path.suffix not in YAML:
        fix = f"`swarm init {path.with_suffix('.yaml')}`; the files of rows here are found by themselves"
        raise UserError(str(path), "is no name of a YAML file, and a config is written there", fix)
    if path.exists():
        raise UserError(str(path), "exists", "name another file: `swarm init other.yaml`")
    staged = path.with_name(f".{path.stem}-{os.getpid()}.yaml")
    try:
        staged.write_text(_own(base) if source is None else _of_other(source, base, path, staged), encoding="utf-8")
        tried = _tried_of_other(staged) if source is not None else _tried(staged) if _has_data() else ""
        os.link(staged, path)  # unlike a rename it never replaces a file
    except FileExistsError:
        raise UserError(str(path), "exists", "name another file: `swarm init other.yaml`") from None
    except OSError as error:
        raise UserError(str(path), f"cannot be written ({error.strerror})", "name another place") from None
    finally:
        with contextlib.suppress(OSError):
            staged.unlink()
    following = f"swarm {'run' if source is None else 'check'} {path}"
    print(f"wrote {path}{tried}; next: {following}", file=sys.stderr)
    if form is not None:
        screen.print_data({"path": str(path), "next": following}, form)


def _own(base: str | None) -> str:
    from swarm.planning import initfile

    return initfile.text(Path.cwd(), base or _asked_base())


def _has_data() -> bool:
    from swarm.planning import initfile

    return bool(initfile.data_files(Path.cwd()) or initfile.texts(Path.cwd()))


def _of_other(source: Path, base: str | None, path: Path, staged: Path) -> str:
    """The text, after it was read as the config that it will be."""
    from swarm import config as rooms
    from swarm.config.importers import imported
    from swarm.errors import UserError

    if base is not None:
        raise UserError("--base", "the base is that of the file", f"set base_model in {path} afterwards")

    def load(text: str) -> object:
        staged.write_text(text, encoding="utf-8")
        return rooms.load(staged, cwd=Path.cwd(), files=False)

    return imported(source, Path.cwd(), path, load)


def _asked_base() -> str:
    """The base model by name; without a person to ask, the one that ships with the product."""
    if not (sys.stdin and sys.stdin.isatty()):
        return EMBEDDED
    return str(typer.prompt("base model: a folder or a name on the hub", default=EMBEDDED, err=True))


def _tried_of_other(path: Path) -> str:
    """Rows that cannot be read are no reason to write nothing: they may be elsewhere, and `check` names them."""
    from swarm.errors import UserError

    try:
        return _tried(path)
    except UserError as error:
        return f" (no row was rendered: {error})"


def _tried(path: Path) -> str:
    """What came of rendering the first rows with a config; raises UserError where none of them can be used."""
    import json
    import subprocess

    from swarm import config as rooms
    from swarm.errors import UserError, UserErrors
    from swarm.planning import starting

    try:
        read = rooms.load(path, [], cwd=Path.cwd())
        starting.require_training_extra()
    except UserErrors as errors:
        first = errors.errors[0]
        return (
            " (no rows found: name your files in it)"
            if "datasets" in first.where
            else f" (no row was rendered: {first.what})"
        )
    except UserError as error:
        return f" (no row was rendered: {error.what})"
    settings = next(iter(read.run.streams.values()))
    with json_file(settings.model_dump(mode="json")) as name:
        done = subprocess.run(
            module_command("trainer.show", "--settings", name, "--json"), capture_output=True, text=True, check=False,
            encoding="utf-8",
        )  # fmt: skip
    if not done.stdout:
        return f" (no row was rendered: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode})"
    rows = json.loads(done.stdout)
    if done.returncode:
        raise UserError(rows[0]["where"], *rows[0]["problem"].rsplit("; ", 1))
    good = [row for row in rows if not row["problem"]]
    return f" ({len(good)} rows rendered, {sum(row['supervised'] for row in good)} of {sum(row['tokens'] for row in good)} tokens supervised)"


def schema(*, form: Form = None) -> None:
    """Print the JSON Schema of a config.

    It is JSON unless --toon is given.  It has the settings of all installed kinds.

    For editors: `# yaml-language-server: $schema=swarm.schema.json` on a config's first line.
    """
    from swarm.cli import screen
    from swarm.config.schema import schema as made

    screen.print_data(made(), form is not False)
