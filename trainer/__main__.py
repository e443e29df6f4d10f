"""python -m trainer --join FILE --run RUN_FOLDER --roles prepare,validate,evaluate --device cpu --threads 1

Starts one worker; `python -m trainer suggest` is the sampler of a search (`trainer.suggest`), `python -m trainer forkserver` makes
workers that share their imports (`trainer.forkserver`).  The launcher sets CUDA_VISIBLE_DEVICES; thread counts are set here, before
anything heavy is imported, or in what has been imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import cast

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words == ["suggest"]:
        from trainer import suggest

        return suggest.main()
    if words[:1] == ["forkserver"]:
        from trainer import forkserver

        words = forkserver.serve(words[1:])
    arguments = _arguments(words)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(arguments.threads)
    if torch := sys.modules.get("torch"):  # in a forked process
        torch.set_num_threads(arguments.threads)

    from bus.errors import BusError  # after the environment is set, like everything below
    from swarm.errors import UserError
    from swarm.event import ROLES, Role
    from swarm.redaction import print_uncaught
    from swarm.surroundings import open_talk
    from trainer.device import set_environment
    from trainer.worker import Post, Worker

    sys.excepthook = print_uncaught
    open_talk()
    set_environment()
    roles = tuple(arguments.roles.split(","))
    if unknown := [role for role in roles if role not in ROLES]:
        print(f"--roles: {unknown[0]!r} is no role; choose from {', '.join(ROLES)}", file=sys.stderr)
        return 2
    post = Post(
        join=arguments.join,
        run_folder=arguments.run.resolve(),
        roles=cast("tuple[Role, ...]", roles),
        device=arguments.device,
        threads=arguments.threads,
        orphan_seconds=arguments.orphan_seconds,
    )
    try:
        return Worker(post).serve()
    except (BusError, UserError) as error:
        print(f"trainer: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"trainer: {error.name} is not installed; pip install 'toonswarm[train]'", file=sys.stderr)
    return 2


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="One worker of a run; `swarm run` starts it."
    )
    parser.add_argument("--join", type=Path, required=True, help="join file with the coordinator's address and keys")
    parser.add_argument("--run", type=Path, required=True, help="the run's folder")
    parser.add_argument("--roles", required=True, help="comma-separated: prepare, train, validate, evaluate")
    parser.add_argument("--device", default="cpu", help="cpu, mps, or gpu0: the index that the user knows")
    parser.add_argument("--threads", type=int, default=1, help="threads for arithmetic")
    parser.add_argument(
        "--orphan-seconds", type=float, default=30.0, help="leave when the coordinator is silent this long"
    )
    parser.add_argument(
        "--launch", default="", help="nonce of this launch, by which its launcher recognizes the process"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
