"""The command `swarm`: reads words, calls the rooms, prints; every import that costs time stands inside a command.

Data goes to stdout, talk to stderr.  Exit status: 0 done, 1 a stream failed, 2 wrong usage or config, 5 refused, 130 stopped.
"""

from __future__ import annotations

import errno
import sys

import typer

from swarm.cli import agents, configs, looking, members, record, running, talking

NOT_OURS = {errno.EACCES, errno.EPERM, errno.EROFS}
"""A run folder that somebody else owns, or that may only be read: the person's to mend, wherever it was met."""

app = typer.Typer(
    name="swarm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich would cost half of the time that `--help` may take
    help="Many fine-tunes at once from a terminal: parallel streams, one shared log, one dashboard.",
    epilog="First steps: swarm init; swarm plan; swarm run.  RUN is a run folder or its name; without it the newest in ./runs.",
)
configs.add_to(app)
running.add_to(app)
looking.add_to(app)
record.add_to(app)
agents.add_to(app)
talking.add_to(app)
members.add_to(app)


def main() -> None:
    """Entry point: user errors become lines on stderr and exit status 2 (5 when something was refused)."""
    from swarm.errors import UserError, UserErrors

    try:
        app()
    except (UserError, UserErrors) as error:
        _complain(error)
        sys.exit(getattr(error, "status", 2))
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        if error.errno not in NOT_OURS or not error.filename:
            raise
        _complain(UserError(str(error.filename), f"{error.strerror}", "ask its owner, or name a folder of your own"))
        sys.exit(2)
    except Exception as error:
        from swarm.log.errors import LogError  # here: loading it costs more than most commands' help

        if not isinstance(error, LogError):
            raise
        _complain(error)
        sys.exit(2)


def _complain(error: Exception) -> None:
    from swarm.logview import printable

    print(printable(str(error)), file=sys.stderr)
