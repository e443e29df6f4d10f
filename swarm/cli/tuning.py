"""`swarm tune`: a search over settings from the command line, the short way to `search:` and `halving:` in a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import typer

from swarm.cli.options import Again, Config, Detach, Form, Overrides, Plain

RANGE = re.compile(r"(?P<low>[^\s.,:]+(?:\.[^\s.,:]+)?)\.\.(?P<high>[^\s,:]+)(?P<log>:log)?")
"""`1e-4..1e-2:log`"""


def add_to(app: typer.Typer) -> None:
    app.command()(tune)


def tune(
    config: Config,
    words: Overrides = None,
    *,
    trials: Annotated[int | None, typer.Option("--trials", metavar="N", min=1, help="how many; by default 8")] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the draws")] = 0,
    first_step: Annotated[
        int | None, typer.Option("--first-step", metavar="STEP", min=1, help="early exit from this step on")
    ] = None,
    reduction: Annotated[
        int, typer.Option("--reduction", metavar="N", min=2, help="one in N goes on beyond a rung")
    ] = 3,
    pruner: Annotated[
        str | None,
        typer.Option(
            "--pruner", metavar="NAME", help="early exit by one of Optuna's: median, hyperband, threshold, ..."
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", metavar="NAME", help="random (the default), grid, tpe, gp, cmaes, ...")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="NAME=NUMBER", help="steps, tokens, minutes or usd that all trials may use"),
    ] = None,
    again: Again = False,
    plain: Plain = False,
    detach: Detach = False,
    form: Form = None,
) -> None:
    """Search settings: trials in place of each stream.

    KEY=A,B,C draws from values, KEY=LOW..HIGH[:log] from a range; other KEY=VALUE words lay settings over the config.
    """
    from swarm.cli.running import run

    space, rest = split(words or [])
    searched = overrides(space, trials, seed, first_step, reduction, sampler)
    limits = [f"budget.{limit}" for limit in budget or ()]
    exits = [f"pruner.type={pruner}"] if pruner else []
    run(config, [*exits, *rest, *searched, *limits], again=again, plain=plain, detach=detach, form=form)


def split(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The space by setting, each as YAML, and the words that are no part of it.  Raises UserError where there is none."""
    from swarm.errors import UserError

    space: dict[str, str] = {}
    rest = []
    for word in words:
        key, _, value = word.partition("=")
        if found := RANGE.fullmatch(value):
            log = ", log: true" if found["log"] else ""
            space[key] = f"{{low: {found['low']}, high: {found['high']}{log}}}"
        elif "," in value and not value.startswith(("[", "{", '"', "'")):
            space[key] = f"[{', '.join(part for part in value.split(','))}]"
        else:
            rest.append(word)
    if not space:
        raise UserError(
            "tune",
            "nothing is searched",
            "write KEY=A,B,C or KEY=LOW..HIGH, such as lora_r=4,8,16 learning_rate=1e-4..1e-2:log",
        )
    return space, rest


def overrides(
    space: dict[str, str],
    trials: int | None,
    seed: int,
    first_step: int | None,
    reduction: int,
    sampler: str | None = None,
) -> list[str]:
    """As `swarm run` takes them."""
    entries = ", ".join(f"{key}: {values}" for key, values in space.items())
    number = f", trials: {trials}" if trials else ""
    drawn = f", sampler: {sampler}" if sampler else ""
    made = [f"search={{space: {{{entries}}}{number}{drawn}, seed: {seed}}}"]
    return made if first_step is None else [*made, f"halving={{first_step: {first_step}, reduction: {reduction}}}"]
