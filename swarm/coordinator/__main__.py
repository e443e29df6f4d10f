"""`python -m swarm.coordinator RUN`: the coordinator of one run, detached."""

import contextlib
import sys

from swarm.coordinator.main import main

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
