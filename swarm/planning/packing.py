"""How many streams one process holds at once: those of a group share their base, any other stream is a group of its own; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.planning.estimate import Need
from swarm.policy.fitting import LOGITS_BYTES, PASS_TOKENS, full_pass_tokens

CHUNK_BYTES = LOGITS_BYTES * 7 // 2
"""A chunk's logits, log-softmax and gradient in fp32, and the logits in 16 bits."""
Groups = Sequence[Sequence[str]]
"""Names of streams that may be trained together."""


def units(needs: Mapping[str, Need], groups: Groups, names: Sequence[str]) -> list[list[Need]]:
    """The needs of these streams by group; one that is in no group is trained by itself."""
    grouped = [[needs[name] for name in group if name in names] for group in groups]
    return [*filter(None, grouped), *([needs[name]] for name in alone(groups, names))]


def alone(groups: Groups, names: Sequence[str]) -> list[str]:
    together = {name for group in groups for name in group}
    return [name for name in names if name not in together]


def bytes_of(unit: Sequence[Need], slots: int, *, cores: int | None = None) -> int:
    """What so many streams of a group need at most, whichever they are.  `cores` of a CPU, which compute a pass each; None: a GPU.

    Their rows go through the base in passes: activations and logits grow no further than those of full ones, and logits no further
    than those of a chunk.
    """
    passes, full = 1 if cores is None else min(slots, cores), full_pass_tokens(on_gpu=cores is None)
    longer = [need.tokens for need in unit if need.tokens > full]  # a row is not cut
    tokens = passes * max(longer) if longer else min(PASS_TOKENS, passes * full)
    activations = _bounded([need.activations for need in unit], unit, slots, tokens)
    logits = _bounded([need.logits for need in unit], unit, slots, tokens)
    chunk = passes * max(CHUNK_BYTES, *(need.logits for need in unit))
    held = _largest([need.held for need in unit], slots)
    return max(need.shared for need in unit) + held + activations + min(logits, chunk)


def _bounded(sizes: Sequence[int], unit: Sequence[Need], slots: int, tokens: int) -> int:
    """The sum for so many streams, or what so many tokens take."""
    each = max(size / need.tokens for size, need in zip(sizes, unit, strict=True))
    return min(_largest(sizes, slots), round(each * tokens))


def _largest(sizes: Sequence[int], count: int) -> int:
    return sum(sorted(sizes, reverse=True)[:count])


def slots_in(
    parts: Sequence[Sequence[Sequence[Need]]],
    room: int | None,
    each_bytes: int,
    *,
    at_most: int,
    cores: int | None = None,
) -> list[int]:
    """Streams at once for each of several processes that share a room; each holds streams of one of its groups at a time."""
    slots = [1] * len(parts)
    growing = True
    while growing:
        growing = False
        for at, groups in enumerate(parts):
            more = [count + (number == at) for number, count in enumerate(slots)]
            is_wanted = slots[at] < max(map(len, groups)) and sum(more) <= at_most
            if is_wanted and (room is None or _bytes(parts, more, each_bytes, cores) <= room):
                slots, growing = more, True
    return slots


def _bytes(parts: Sequence[Sequence[Sequence[Need]]], slots: Sequence[int], each_bytes: int, cores: int | None) -> int:
    return sum(
        each_bytes + max(bytes_of(group, count, cores=cores) for group in groups)
        for groups, count in zip(parts, slots, strict=True)
    )
