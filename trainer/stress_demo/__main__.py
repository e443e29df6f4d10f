"""
python -m trainer.stress_demo shock       # answers are shuffled for a while: fixed, cosine, controller, controller + mirror
python -m trainer.stress_demo tasks       # two tasks that contradict each other: one adapter, or one for each
python -m trainer.stress_demo shock --base FOLDER --device gpu0 --seeds 5
"""

from __future__ import annotations

import argparse
import sys

from swarm.errors import UserError
from trainer.device import place_of, set_environment
from trainer.quiet import quieten


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m trainer.stress_demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("which", choices=("shock", "tasks"))
    parser.add_argument("--base", default="tiny-toon", help="a folder or a name; default: the embedded base")
    parser.add_argument("--device", help="cpu, mps, or gpu0; default: a GPU where there is one")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(argv)
    quieten()
    set_environment(given.device)
    from trainer.stress_demo import shock, tasks  # torch is imported with them, once the environment is set

    try:
        {"shock": shock.show, "tasks": tasks.show}[given.which](given.base, place_of(given.device), given.seeds)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
