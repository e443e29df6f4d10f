"""python -m trainer.ship.serve MODEL... [--host H] [--port P] [--key-file FILE] [--encoder NAME=MODEL] ...

An OpenAI-compatible server for a base and its adapters: the request's `model` chooses, the bare base is a model too.  Served are
`/v1/models`, `/v1/chat/completions` and `/v1/completions`, the last two with streaming (server-sent events), with an encoder
`/v1/embeddings`, and for a run with `feedback:` `/v1/ratings`; what of them is in `api`.  Not here: several answers at once, tools, log probabilities.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import UserError
from swarm.printable import printable
from swarm.surroundings import open_output
from trainer import bases
from trainer.device import place_of, set_environment
from trainer.quiet import quieten
from trainer.ship.sources import add_models, named_in
from trainer.show import add_forms, print_form

if TYPE_CHECKING:
    from trainer.ship.endpoints import Endpoints

KEY_VARIABLE = "SWARM_SERVE_KEY"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SHUTDOWN_SECONDS = 5
"""So long open connections may take to end; answers end at their next token."""


def key_of(path: Path | None) -> str | None:
    """The key that clients must send, from a file or the environment: on a command line everybody could read it."""
    if path is None:
        return os.environ.get(KEY_VARIABLE) or None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(str(path), "cannot be read", "name a file that holds the key") from error
    if not key:
        raise UserError(str(path), "holds no key", "write one into it")
    return key


def encoders_of(words: list[str], models: Sequence[str]) -> dict[str, str]:
    """`[NAME=]MODEL` each: the encoders by their names.  Raises UserError."""
    found: dict[str, str] = {}
    for word in words:
        name, _, model = ("", "", word) if Path(word).exists() else word.rpartition("=")
        bases.folder_of(model)
        name = name or Path(model).name
        if name in {*models, *found}:
            raise UserError("--encoder", f"{name!r} names two models", "give one another name: NAME=MODEL")
        found[name] = model
    return found


def routes_of(words: list[str], names: Sequence[str]) -> dict[str, str]:
    """`TASK=MODEL` each.  Raises UserError."""
    routes = {}
    for word in words:
        task, _, name = word.partition("=")
        if not task or name not in names:
            raise UserError(
                "--route", f"{word!r} names no model here", f"write TASK=MODEL with one of {', '.join(names)}"
            )
        routes[task] = name
    return routes


def listening(host: str, port: int) -> socket.socket:
    """Bound before any model is loaded, so that a port in use is said at once.  Raises UserError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise UserError(
            f"{host}:{port}", f"cannot be listened on ({error})", "name another with --host or --port"
        ) from error
    return bound


def run(endpoints: Endpoints, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT: then answers end at their next token and connections are closed."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: object) -> None:
            endpoints.waiting.end()
            super().handle_exit(sig, frame)  # type: ignore[arg-type]

    config = uvicorn.Config(
        endpoints.app(), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again when it has ended
        signal.signal(number, lambda *_: None)
    Server(config).run(sockets=[bound])
    endpoints.waiting.close()


def announce(bound: socket.socket, names: Sequence[str], *, has_key: bool, form: str | None) -> None:
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    print_form({"url": url, "models": list(names), "key": has_key}, form)
    sys.stdout.flush()
    if host not in LOOPBACK and not has_key:
        print(f"anybody who reaches {host} can use it: --key-file FILE asks for a key", file=sys.stderr)
    print(printable(f"serving {', '.join(names)} on {url}"), file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    open_output()
    quieten()
    set_environment(options.device)
    try:
        sources = named_in(options)
        encoders = encoders_of(options.encoder, sources.names)
        names = [*sources.names, *encoders]
        routes, key = routes_of(options.route, names), key_of(options.key_file)
        with contextlib.closing(listening(options.host, options.port)) as bound:
            from trainer.ship.encoders import Encoder
            from trainer.ship.endpoints import Endpoints, Limits
            from trainer.ship.models import Models
            from trainer.ship.rated import Rated, run_of_promoted

            place = place_of(options.device)
            models = Models(sources, place, trust_remote_code=options.trust_remote_code)
            limits = Limits(options.most_waiting, options.most_bytes, options.temperature)
            hosts = LOOPBACK if bound.getsockname()[0] in LOOPBACK else ()
            loaded = {name: Encoder.of_base(model, place) for name, model in encoders.items()}
            run_folder = run_of_promoted(sources.adapters)
            rated = Rated(run_folder, models) if run_folder else None
            endpoints = Endpoints(models, loaded, limits, key, routes, hosts, int(time.time()), rated)
            bound.listen()  # who connects from now on is answered as soon as the loop runs
            announce(bound, names, has_key=key is not None, form=options.form)
            run(endpoints, bound)
    except UserError as error:
        print(printable(str(error)), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"swarm serve: needs the package {error.name}; pip install 'toonswarm[serve]'", file=sys.stderr)
        return 2
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.ship.serve", description="Serve a base and its adapters.")
    add_models(parser)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    parser.add_argument("--key-file", type=Path, help=f"the key that clients send; or in ${KEY_VARIABLE}")
    parser.add_argument(
        "--encoder", action="append", default=[], metavar="[NAME=]MODEL", help="for /v1/embeddings and labels"
    )
    parser.add_argument("--route", action="append", default=[], metavar="TASK=MODEL", help="for the model `auto`")
    parser.add_argument("--temperature", type=float, default=1.0, help="where a request names none; the API's is 1")
    parser.add_argument("--most-waiting", type=int, default=32, help="answers that wait at once; beyond: 429")
    parser.add_argument("--most-bytes", type=int, default=8 << 20, help="of a request; beyond: 413")
    add_forms(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
