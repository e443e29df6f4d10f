"""`python -m toon` is the command `toon`."""

import sys

from toon.cli import main

sys.exit(main())
