"""Which rows go together, so that a micro-batch has about as many tokens as there is room for.

A packed sequence is a set of documents, each a row of its own in the forward pass: no document sees another one, in any family of
models, whatever its attention.  What packing saves elsewhere, pads, the loop saves by passes of like length (`plan.buckets`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Sequence


def best_fit_decreasing(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows by packed sequence of at most `room` tokens: the longest first, each where it leaves the least room.

    The same sequences in the same order as TRL's `packing_strategy: bfd` (arXiv 2404.10830).
    """
    made: list[list[int]] = []
    spaces: list[int] = []  # of the sequences with room, ascending, each once
    by_space: defaultdict[int, deque[list[int]]] = defaultdict(deque)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        at = bisect_left(spaces, lengths[row])
        if at < len(spaces):
            space = spaces[at]
            sequence = by_space[space].popleft()
            if not by_space[space]:
                del spaces[at]
        else:
            space, sequence = room, []
            made.append(sequence)
        sequence.append(row)
        if left := space - lengths[row]:
            if not by_space[left]:
                insort(spaces, left)
            by_space[left].append(sequence)
    return made


def within_tokens(lengths: Sequence[int], most: int, *, by_length: bool) -> list[list[int]]:
    """Micro-batches of at most `most` tokens, each row counted as long as the longest one; a longer row is alone.

    The same in every epoch, whose order of them differs.
    """
    order = sorted(range(len(lengths)), key=lambda row: lengths[row]) if by_length else range(len(lengths))
    made: list[list[int]] = []
    longest = 0
    for row in order:
        longest = max(longest, lengths[row])
        if not made or (len(made[-1]) + 1) * longest > most:
            made.append([])
            longest = lengths[row]
        made[-1].append(row)
    return made
