"""Who is told when a run needs somebody: webhooks and commands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from swarm.keys import Reads, Settings

Occasion = Literal["stalled", "nan", "failed", "new_best", "end"]
OCCASIONS: tuple[Occasion, ...] = ("stalled", "nan", "failed", "new_best", "end")
Url = Annotated[
    str,
    StringConstraints(pattern=r"^(https?://[^\s]+|\$[A-Z_][A-Z0-9_]*)$"),
    Reads("http://... or https://..., or $NAME of an environment variable that holds it"),
]


class Alert(Settings):
    """One receiver; it gets JSON, by POST or on its standard input."""

    url: Url | None = None
    """A webhook; `$NAME`: the address stands in that environment variable, since the config is copied into the run folder."""
    command: Annotated[list[str], Field(min_length=1)] | None = None
    """A program with its arguments, in place of `url`; no shell reads them."""
    on: Annotated[list[Occasion], Field(min_length=1)] = list(OCCASIONS)
    """stalled: a worker makes no progress; nan: a figure was not finite; failed: a stream is given up; new_best: a held-out loss below all before; end: the run is over."""
    secret_env: str | None = None
    """Environment variable with the key by which each message is signed: `X-Swarm-Signature: sha256=HMAC of the body`."""
