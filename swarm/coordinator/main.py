"""`python -m swarm.coordinator RUN`, detached: takes the log's lock, begins the fork server of the workers, and coordinates.

What the fork server imports decides when a run trains: what only the coordinator needs is imported behind it, at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.errors import UserError, UserErrors
from swarm.launch import local
from swarm.launch.layout import Layout
from swarm.log import NO_SPACE, LogError, LogWriter
from swarm.log.clock import seconds_since_boot
from swarm.rundir import RunFolder


def steady_clock() -> Callable[[], float]:
    """Log time while this process holds the log: the wall clock of now, going on as steadily as the machine.

    A wall clock that is set meanwhile ends no lease and makes none longer; sleep of the machine counts.
    """
    start = time.time() - seconds_since_boot()
    return lambda: start + seconds_since_boot()


def main(arguments: Sequence[str] | None = None) -> int:
    """Why it cannot start is also told on stdout, which whoever starts it reads until it is up: on a full disk no file says it."""
    parser = argparse.ArgumentParser(prog="python -m swarm.coordinator", description=__doc__)
    parser.add_argument("run", type=Path)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = RunFolder(options.run.resolve())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))  # over TCP whoever reaches the port takes descriptors
    try:
        with LogWriter.open(folder.log, wait_seconds=2.0, secret=folder.log_secret(), clock=steady_clock()) as writer:
            layout = Layout.read(folder.layout)
            local.begin(forks := local.fork_server(layout, folder), layout, folder)
            from swarm import config
            from swarm.coordinator.coordinator import Coordinator

            settings = config.load(folder.config, cwd=folder.path, of_a_run=True).run
            coordinator = Coordinator(folder, settings, layout, writer, forks)
            return asyncio.run(coordinator.run())
    except (UserError, UserErrors, LogError) as error:
        _tell(str(error))
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        why = "no space" if error.errno in NO_SPACE else error.strerror
        _tell(f"{error.filename or folder.path}: {why}; see that it can be written")
        raise
    except Exception as error:
        _tell(f"{type(error).__name__}: {error}")
        raise


def _tell(why: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it once the run is up
        print(why, flush=True)
