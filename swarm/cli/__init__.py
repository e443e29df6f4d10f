"""The command `swarm`; imports that cost time are inside the commands.

Data goes to stdout, messages to stderr.  Exit status: 0 done, 1 a stream failed, 2 wrong usage or config, 5 refused, 130 stopped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from swarm.cli import (
    agents,
    asking,
    configs,
    data,
    drafting,
    joining,
    judging,
    looking,
    members,
    notifying,
    rating,
    reading,
    record,
    researching,
    running,
    shipping,
    talking,
    tidying,
    tuning,
    using,
    yielding,
)  # fmt: skip
from swarm.plainfiles import FOREIGN
from swarm.redaction import print_uncaught
from swarm.spawning import find_own_modules_first
from swarm.surroundings import open_output

FIXES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "ask its owner, or name a folder of your own"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a folder belongs there: move it away, or name another"),
    errno.EISDIR: "a file belongs there: move it away, or name another",
}
"""The fix for an error of the operating system, by its number."""
UsageError = typer.BadParameter.__mro__[1]
"""The class of all wrong usage (click's UsageError); typer exports only some of its subclasses."""


class Commands(TyperGroup):
    """All commands; a closed pipe is no error, and an option together with its opposite is one."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _closed_pipes_are_no_error():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        with _closed_pipes_are_no_error():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        for option in command.params if command else ():
            _check_not_both(option.opts, option.secondary_opts, rest)
        return name, command, rest


@contextlib.contextmanager
def _closed_pipes_are_no_error() -> Iterator[None]:
    """A closed pipe ends a command with status 0: typer would give 1, although everything was recorded."""
    try:
        yield
    except BrokenPipeError:
        raise typer.Exit(0) from None


def _check_not_both(words: Sequence[str], opposites: Sequence[str], given: list[str]) -> None:
    from swarm.errors import UserError

    options = given[: given.index("--")] if "--" in given else given
    for word in set(words).intersection(options):
        for opposite in set(opposites).intersection(options):
            raise UserError(word, f"is the opposite of {opposite}", "give one of them")


app = typer.Typer(
    name="swarm",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes half of the time that `--help` may take
    help="Many fine-tunes at once from a terminal: parallel streams, one shared log, one dashboard.",
    epilog="First steps: swarm init; swarm plan; swarm run.  RUN is a run folder or its name; without it the newest in ./runs here or above.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"toonswarm {metadata.version('toonswarm')}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
    foreign: Annotated[bool, typer.Option("--foreign", help="write into run folders of other users as well")] = False,
) -> None:
    if foreign:
        os.environ[FOREIGN] = "1"  # the processes that a command starts know it too


drafting.add_to(app)
configs.add_to(app)
running.add_to(app)
tuning.add_to(app)
joining.add_to(app)
yielding.add_to(app)
researching.add_to(app)
looking.add_to(app)
reading.add_to(app)
asking.add_to(app)
tidying.add_to(app)
record.add_to(app)
agents.add_to(app)
talking.add_to(app)
members.add_to(app)
notifying.add_to(app)
rating.add_to(app)
shipping.add_to(app)
using.add_to(app)
judging.add_to(app)
data.add_to(app)


def main() -> None:
    """Entry point: an error that a user can fix becomes a line on stderr and exit status 2 (5 if the event was refused)."""
    find_own_modules_first()
    open_output()
    sys.excepthook = print_uncaught
    status = 0
    try:
        status = _run()
        if sys.stdout:
            sys.stdout.flush()  # an error can be reported here, but not at the interpreter's exit
    except BrokenPipeError:
        pass
    except Exception as error:
        status = _report(error)
    _discard_output()
    sys.exit(status)


def _run() -> Any:
    """The command's exit status."""
    try:
        return app(prog_name="swarm", standalone_mode=False) or 0
    except SystemExit as leaving:
        return leaving.code
    except typer.Abort:
        print("Aborted!", file=sys.stderr)
        return 1


def _discard_output() -> None:
    """Discard output that cannot be written any more."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception) -> int:
    """Print an error that a user can fix and return the exit status; raise every other one."""
    from swarm.errors import UserError, UserErrors
    from swarm.log import LogError
    from swarm.printable import printable

    if isinstance(error, OSError):
        error = _system_error(error)
    elif isinstance(error, UsageError):
        error = _usage_error(error)
    if not isinstance(error, UserError | UserErrors | LogError | UsageError):
        raise error
    print(printable(str(error)), file=sys.stderr)
    return getattr(error, "status", 2)


def _system_error(error: OSError) -> Exception:
    from swarm.errors import UserError
    from swarm.log import NO_SPACE

    if error.errno in NO_SPACE and error.filename:
        return UserError(str(error.filename), "no space", "free some and try again")
    if error.errno in NO_SPACE:
        return UserError("standard output", "no space", "free some; everything was recorded in the log")
    if error.errno in FIXES and error.filename:
        return UserError(str(error.filename), str(error.strerror), FIXES[error.errno])
    return error


def _usage_error(error: Any) -> Exception:
    """Typer's usage error in this project's form; unchanged for `swarm` without arguments, where it is the whole help."""
    from swarm.errors import UserError

    if len(sys.argv) < 2:
        return error  # type: ignore[no-any-return]
    command = error.ctx.command_path if error.ctx else f"swarm {sys.argv[1]}"
    where = _place_of(error) or command
    what, _, meant = " ".join(error.message.split()).removesuffix(".").partition(". ")
    what = what.removeprefix(f"Option {where!r} ").removeprefix("Input ").removesuffix(f": {where}") or "is missing"
    if near := getattr(error, "possibilities", None):
        meant = f"did you mean {' or '.join(near)}?"
    return UserError(where, _uncapitalised(what), _uncapitalised(meant) or f"`{command} --help` says what it takes")


def _place_of(error: Any) -> str:
    """The option or argument that is wrong."""
    param = getattr(error, "param", None)
    if param is None:
        return getattr(error, "option_name", "")
    return str(param.opts[0]) if param.param_type_name == "option" else str(param.metavar or param.name.upper())


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
