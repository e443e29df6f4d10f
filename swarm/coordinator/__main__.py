"""`python -m swarm.coordinator RUN`: the coordinator of one run, detached."""

import contextlib
import sys

from swarm.coordinator.main import main
from swarm.redaction import print_uncaught
from swarm.surroundings import open_talk

if __name__ == "__main__":
    sys.excepthook = print_uncaught
    open_talk()
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
