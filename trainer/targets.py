"""Which layers of a base get an adapter: by name, by pattern, or by what they do in families that name them differently; without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from swarm.errors import UserError
from swarm.facts import BaseFacts, Module

ALL_LINEAR = "all-linear"
NAMES = re.compile(r"[\w.-]+(?:\s*,\s*[\w.-]+)*,?")
"""`q_proj` or `q_proj, v_proj`: names of layers; any other text is a pattern."""
LAYERS = re.compile(r"\s*(-?\d+)\s*(?::\s*(-?\d+)\s*)?")
"""`16` or `16:31`."""
ATTENTION = re.compile(r"attn|attention")
"""In a part of a layer's name: self_attn of Llama, Mistral, Qwen, Gemma and Phi-3, attn of GPT-2, attention of NeoX and BERT, ..."""
FEED_FORWARD = re.compile(r"mlp|ffn|feed_forward|fc\d?|intermediate|output|shared_expert")
"""The same of the layers between; `intermediate` and `output` are BERT's, whose attention has an `output` of its own."""


def targeted(base: BaseFacts, settings: Any) -> list[Module]:
    """The layers that `settings`, LoRA's own, give an adapter.  Raises UserError where there are none, or some can have none."""
    mode = settings.lora_target_mode
    found = _by_mode(base, mode) if mode else _named(base, settings.targets)
    if settings.layers_to_transform is None:
        return found
    wanted = layers(settings.layers_to_transform, base.layers)
    kept = [module for module in found if layer_of(module.name) in wanted]
    if not kept:
        what = "none of the layers that get an adapter stands there"
        raise UserError("layers_to_transform", what, f"the base's layers are 0 to {base.layers - 1}")
    return kept


# ---- by what they do ----


def _by_mode(base: BaseFacts, mode: str) -> list[Module]:
    attention = [module for module in base.linears if is_attention(module.name)]
    between = [module for module in base.linears if is_feed_forward(module.name)]
    if mode == "auto" and not (attention and between):
        return list(base.linears)
    wanted = attention if mode == "attn" else [m for m in base.linears if m in attention or m in between]
    if not wanted:
        raise UserError("lora_target_mode", f"{mode} finds no layer of attention in the base", _layers(base))
    return wanted


def is_attention(name: str) -> bool:
    return layer_of(name) is not None and ATTENTION.search(name) is not None


def is_feed_forward(name: str) -> bool:
    parts = name.split(".")
    return layer_of(name) is not None and not is_attention(name) and any(map(FEED_FORWARD.fullmatch, parts))


# ---- by layer ----


def layer_of(name: str) -> int | None:
    """The number of the layer in which a module stands."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def layers(written: int | str | list[int | str], count: int, where: str = "layers_to_transform") -> set[int]:
    """`16:31` is from 16 to 31, both included; numbers below zero count from the end.  Raises UserError."""
    items = written if isinstance(written, list) else str(written).split(",")
    return {number for item in items for number in _span(str(item), count, where)}


def _span(text: str, count: int, where: str) -> range:
    match = LAYERS.fullmatch(text)
    if not match:
        fix = "write e.g. 16, 16:31, -4:-1 (the last four), or a list of them"
        raise UserError(where, f"{text.strip()!r} names no layers", fix)
    first, last = (int(number) for number in (match[1], match[2] or match[1]))
    first, last = (number + count if number < 0 else number for number in (first, last))
    if not 0 <= first <= last < count:
        what = f"{text.strip()!r} is not within the {count} layers of the base"
        raise UserError(where, what, f"its layers are 0 to {count - 1}, or -{count} to -1")
    return range(first, last + 1)


# ---- by name ----


def _named(base: BaseFacts, wanted: str | list[str]) -> list[Module]:
    """By PEFT's rules: a list names the ends of names, a text is a pattern of whole names."""
    if wanted == ALL_LINEAR:
        return list(base.linears)
    if isinstance(wanted, str):
        return _checked(base, _by_pattern(base, wanted))
    for name in wanted:
        if not any(_ends(module.name, name) for module in base.modules):
            raise _error(f"{name} matches no layer of the base", _layers(base))
    return _checked(base, [m for m in base.modules if any(_ends(m.name, name) for name in wanted)])


def _by_pattern(base: BaseFacts, pattern: str) -> list[Module]:
    try:
        found = [module for module in base.modules if re.fullmatch(pattern, module.name)]
    except re.error as error:
        raise _error(f"{pattern!r} is no pattern ({error})", "write all-linear, or a list of names") from error
    if not found:
        example = base.linears[0].name if base.linears else base.head
        what = f"the pattern {pattern!r} matches no whole name of a layer, such as {example}"
        raise _error(what, f"write .* before it, or a list of names: {_layers(base)}")
    return found


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _checked(base: BaseFacts, found: Sequence[Module]) -> list[Module]:
    able = {module.name for module in base.linears}
    for module in found:
        if module.name not in able:
            what = (
                "is the head"
                if module.name == base.head
                else "is an embedding"
                if module.kind == "embedding"
                else "cannot be wrapped by PEFT"
            )
            raise _error(f"{module.name} {what}, which gets no adapter here", _layers(base))
    return list(found)


def _layers(base: BaseFacts) -> str:
    names = dict.fromkeys(module.name.rpartition(".")[2] for module in base.linears)
    return f"its layers are {', '.join(names)}; or write all-linear"


def _error(what: str, fix: str) -> UserError:
    return UserError("lora_target_modules", what, fix)


def matched(patterns: Mapping[str, Any], name: str) -> Any:
    """What the first pattern has that matches the end of a layer's name, as PEFT's `rank_pattern`; None where none does."""
    return next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", name)), None)
