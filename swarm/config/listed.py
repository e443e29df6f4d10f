"""The table of all settings (values, unit, default, meaning) as Markdown, derived from the classes of the settings.

python -m swarm.config.listed > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from swarm import kinds
from swarm.config.checks import expected
from swarm.config.names import GROUPS
from swarm.keys import Settings
from swarm.settings import (
    Alert,
    Budget,
    Dataset,
    Feedback,
    Halving,
    Judge,
    Phase,
    Placement,
    Promotion,
    Pruner,
    Range,
    Research,
    RunSettings,
    Search,
    StreamSettings,
)

HEAD = """\
# Settings

All settings of a config, made from `swarm/settings` by `python -m swarm.config.listed > docs/settings.md`.
On the command line a setting is laid over the file as `KEY.PATH=VALUE`; `swarm plan CONFIG --explain` shows where each value comes from.
"""

TITLES: dict[type[Settings], str] = {
    RunSettings: "Of the run",
    StreamSettings: "Of a stream",
    Dataset: "Of a dataset",
    Judge: "Of a judge",
    Placement: "Of the placement",
    Promotion: "Of the promotion",
    Halving: "Of early exit",
    Pruner: "Of a pruner",
    Budget: "Of the budget",
    Alert: "Of an alert",
    Research: "Of the research",
    Phase: "Of a phase",
    Feedback: "Of feedback",
    Search: "Of a search",
    Range: "Of a range in its space",
}

UNITS = {
    "seconds": "s", "minutes": "min", "steps": "optimizer steps", "epochs": "epochs", "rows": "rows", "tokens": "tokens",
    "sequence_len": "tokens", "limit": "rows", "micro_batch_size": "rows", "gradient_accumulation_steps": "passes",
    "val_set_size": "share, or rows", "max_cut_rows": "share", "max_lost_rows": "share", "lora_dropout": "share", "warmup_ratio": "share", "max_heldout_ratio": "ratio",
    "save_total_limit": "checkpoints", "streams_per_gpu": "streams", "cpu_streams": "streams", "retries": "attempts",
    "approvals": "entries",
}  # fmt: skip
"""Units by the name of a setting, or by the end of its name."""


def text() -> str:
    groups = [line for group, title in TITLES.items() for line in _table(group, title, f"Written {GROUPS[group]}")]
    chosen = [line for setting in kinds.GROUPS for line in _kinds(setting)]
    return "\n".join([HEAD, *groups, *_stops(), *chosen])


def _stops() -> Iterator[str]:
    place = (
        f"Written {GROUPS[StreamSettings]}; one that could end nothing in the training is refused with the arithmetic"
    )
    for stop in kinds.installed("stop").values():
        yield from _table(stop.settings, f"Of the stop {stop.name}: {stop.summary}", place)


def _kinds(setting: str) -> Iterator[str]:
    """The choices, and the settings that each choice has."""
    known = kinds.installed(setting).values()
    yield f"## {setting.capitalize()}s\n"
    yield f"| `{setting}` | what it is |"
    yield "|---|---|"
    for kind in known:
        yield f"| `{kind.name}` | {kind.summary} |"
    yield ""
    for group in dict.fromkeys(kind.settings for kind in known if kind.settings.model_fields):
        names = " or ".join(f"`{setting}: {kind.name}`" for kind in known if kind.settings is group)
        yield from _table(group, f"Of {names}", f"Written {GROUPS[StreamSettings]} that chooses it")


def _table(group: type[Settings], title: str, place: str) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{place}\n"
    yield "| setting | takes | unit | default | what it is |"
    yield "|---|---|---|---|---|"
    described = group.descriptions()
    for name, field in group.model_fields.items():
        description = " ".join(described.get(name, "").split())
        cells = (f"`{name}`", _takes(name, field), _unit(name), _default(field), description)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _unit(name: str) -> str:
    return UNITS.get(name) or next((unit for ending, unit in UNITS.items() if name.endswith(f"_{ending}")), "")


def _takes(name: str, field: FieldInfo) -> str:
    if name in kinds.GROUPS:
        return f"a name of the table of {name}s below"
    if field.annotation is RunSettings.model_fields["streams"].annotation:
        return "streams by name"
    if field.annotation is RunSettings.model_fields["roles"].annotation:
        return "lists of worker or agent:NAME by role"
    return expected(field.annotation, field.metadata)


def _default(field: FieldInfo) -> str:
    match field.default:
        case _ if field.is_required():
            return "must be given"
        case None:
            return "unset"
        case Settings() | [] | {}:
            return "-"
        case bool(value):
            return f"`{str(value).lower()}`"
        case float(value):
            return f"`{value:g}`"
        case str(value):
            return f"`{value.encode('unicode_escape').decode()}`"
        case value:
            return f"`{value}`"


if __name__ == "__main__":
    print(text(), end="")
