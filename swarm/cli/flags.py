"""Settings typed as flags, `--learning_rate 2e-5` or `--use-mmt`: the same overrides as `learning_rate=2e-5` and `use_mmt=true`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TAKES_SETTINGS = {"ignore_unknown_options": True}
"""Of commands whose unknown options are settings; one that is no setting either is a mistake like that of any override."""
OF_OTHERS = {"epochs": "num_epochs", "scheduler_type": "lr_scheduler", "plateau_delta": "plateau_min_delta"}
"""Settings by their names in the published command line of Duo."""


def as_overrides(words: Sequence[str] | None) -> list[str]:
    """`KEY.PATH=VALUE` for each; a flag without a value is true."""
    return list(_overrides(words or ()))


def _overrides(words: Sequence[str]) -> Iterator[str]:
    waiting: str | None = None
    for word in words:
        if waiting and not word.startswith("--") and "=" not in word:
            yield f"{waiting}={word}"
            waiting = None
            continue
        if waiting:
            yield f"{waiting}=true"
        waiting = None
        if not word.startswith("--"):
            yield word
        elif "=" in word:
            flag, _, value = word.partition("=")
            yield f"{_key(flag)}={value}"
        else:
            waiting = _key(word)
    if waiting:
        yield f"{waiting}=true"


def _key(flag: str) -> str:
    """Names of streams keep their dashes."""
    *above, last = flag.removeprefix("--").split(".")
    name = last.replace("-", "_")
    return ".".join([*above, name if above else OF_OTHERS.get(name, name)])
