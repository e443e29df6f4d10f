"""Suggests what an unknown key or value was probably meant to be, for error messages only."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from swarm import kinds
from swarm.config.foreign import meaning_of
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

LISTED_IN = "docs/settings.md"
"""Written by `swarm.config.listed`."""

VALUES: dict[tuple[str, str], str] = {
    ("adapter", "dora"): "write `adapter: lora` with `use_dora: true`",
    ("adapter", "qdora"): "write `adapter: qlora` with `use_dora: true`",
    ("adapter", "rslora"): "write `adapter: lora` with `use_rslora: true`",
    ("init_lora_weights", "loftq"): "write `default`: LoftQ changes the quantised base, which streams share",
    ("type", "chat_template"): "write `type: chatml`, with `messages:` for the column",
    ("type", "sharegpt"): "write `type: chatml`, with `messages: conversations`",
    ("type", "chat"): "write `type: chatml`",
    ("type", "completion"): "write `type: text`, with `text:` for the column",
    ("type", "input_output"): "write `type: prompt_completion`, with `prompt:` and `completion:` for the columns",
    **dict.fromkeys(
        [("optimizer", f"adamw_{end}") for end in ("hf", "torch_fused", "torch_xla", "torch_npu_fused", "apex_fused")],
        "write `optimizer: adamw`: the libraries choose its kernel",
    ),
    **dict.fromkeys(
        [("optimizer", f"adamw_{end}") for end in ("bnb_8bit", "torch_8bit")], "write `optimizer: adamw_8bit`"
    ),
    ("optimizer", "paged_adamw_32bit"): "write `optimizer: paged_adamw`",
    ("optimizer", "paged_lion_32bit"): "write `optimizer: paged_lion`",
    ("optimizer", "lion_pytorch"): "write `optimizer: lion`",
    **dict.fromkeys(
        [
            ("attn_implementation", f"flash_{end}")
            for end in ("attention_2", "attention_3", "attn", "attn_2", "attention")
        ],
        "write `attn_implementation: auto`: sdpa has flash kernels of torch's own, and the package flash-attn is not used",
    ),
}
"""Values of other tools, and what to write instead."""

GROUPS: dict[type[Settings], str] = {
    RunSettings: "at the top of the file, beside `streams:`",
    StreamSettings: "below `defaults:` or a stream",
    Dataset: "in an entry of `datasets:`",
    Judge: "below `judge:` of a stream",
    Placement: "below `placement:`",
    Promotion: "below `promotion:`",
    Halving: "below `halving:`",
    Pruner: "below `pruner:`",
    Budget: "below `budget:`",
    Alert: "below `alerts:`",
    Research: "below `research:`",
    Phase: "below a phase of `research:`",
    Feedback: "below `feedback:`",
    Search: "below `search:` of a stream",
    Range: "in the space of a `search:`",
}
"""Where each group of settings is written."""


def fix_of_key(key: str, group: type[Settings]) -> str:
    """The fix for an unknown key."""
    home = next(one for one in GROUPS if issubclass(group, one))
    known = ["defaults", *group.model_fields] if group is RunSettings else list(group.model_fields)
    folded = key.lower().replace("-", "_")
    if folded in known:
        return f"did you mean `{folded}`?"
    if home is StreamSettings and (owners := _owners_of(folded)):
        return f"it is a setting of {' or '.join(owners)}"
    if meaning := meaning_of(folded, home):
        return f"here it is {meaning}" if meaning.startswith("`") else meaning
    for other, place in GROUPS.items():
        if folded in other.model_fields or (other is StreamSettings and _owners_of(folded)):
            return f"write it {place}"
    if close := close_to(folded, known):
        return f"did you mean `{close}`?"
    for other, place in GROUPS.items():
        if (meaning := meaning_of(folded, other)) and meaning.startswith("`"):
            return f"here it is {meaning}, {place}"
    return f"remove it; {LISTED_IN} lists all settings"


def _owners_of(key: str) -> list[str]:
    """The choices that have this setting: `adapter: lora`."""
    return [
        f"`{setting}: {kind.name}`"
        for setting in kinds.GROUPS
        for kind in kinds.installed(setting).values()
        if key in kind.settings.model_fields
    ]


def fix_of_value(key: str, value: str, choices: Iterable[str]) -> str:
    """The fix for an unknown value."""
    folded = value.lower().replace("-", "_")
    if (key, folded) in VALUES:
        return VALUES[key, folded]
    known = list(choices)
    if close := close_to(folded, known):
        return f"did you mean `{close}`?"
    return "take one of them" if len(known) > 1 else f"write `{known[0]}`"


def close_to(word: str, known: list[str], *, likeness: float = 0.7) -> str | None:
    found = difflib.get_close_matches(word[:80], known, n=1, cutoff=likeness)
    return found[0] if found else None
