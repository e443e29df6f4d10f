from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.loop.plan import Pass, Row, _evenly, buckets, pass_cost, shared_out

COST = 64
ROWS = st.lists(
    st.builds(lambda slot, length: Row(slot, [1] * length, [1] * length), st.integers(0, 4), st.integers(1, 200)),
    max_size=12,
)


def cost(parts: list[list[Row]]) -> int:
    return sum(len(part) * max(len(row.ids) for row in part) + COST for part in parts)


@given(ROWS, st.integers(1, 800))
def test_buckets_hold_every_row_once_and_stay_within_the_bound_unless_a_row_alone_is_longer(rows, limit) -> None:
    parts = buckets(rows, COST, limit)
    assert sorted(map(id, rows)) == sorted(id(row) for part in parts for row in part)
    for part in parts:
        assert len(part) == 1 or len(part) * max(len(row.ids) for row in part) <= limit


@given(ROWS)
def test_no_other_cut_of_the_sorted_rows_is_cheaper(rows) -> None:
    ordered = sorted(rows, key=lambda row: len(row.ids))
    best = cost(buckets(rows, COST, 10**6))
    for cuts in range(2 ** max(0, len(ordered) - 1)):
        parts, part = [], []
        for at, row in enumerate(ordered):
            part = [*part, row]
            if at == len(ordered) - 1 or cuts >> at & 1:
                parts.append(part)
                part = []
        assert best <= cost(parts)


def test_a_pass_costs_a_small_base_more_tokens_than_a_large_one() -> None:
    small, wide, large = ([size] * layers for size, layers in ((50_000, 28), (450_000, 28), (60_000_000, 224)))
    assert [pass_cost(sizes, on_gpu=False) for sizes in (small, wide, large)] == [150, 17, 16]
    assert [pass_cost(sizes, on_gpu=True) for sizes in (wide, large)] == [38889, 292]


@given(ROWS, st.integers(1, 4))
def test_groups_hold_every_row_once_and_no_two_of_them_a_stream_in_common(rows, count) -> None:
    slots = {row.slot for row in rows}
    for exact, most in ((True, len(slots)), (False, min(count, len(slots)))):
        groups = flat(shared_out(rows, COST, 800, exact=exact, count=count))
        assert sorted(map(id, rows)) == sorted(id(row) for group in groups for row in group)
        assert sum(len({row.slot for row in group}) for group in groups) == len(slots)
        assert len(groups) == most


def flat(groups: list[list[list[Row]]]) -> list[list[Row]]:
    return [[row for part in group for row in part] for group in groups]


@given(ROWS)
def test_an_exact_group_is_one_stream_with_its_passes_as_if_it_were_alone(rows) -> None:
    for passes in shared_out(rows, COST, 300, exact=True):
        [slot] = {row.slot for part in passes for row in part}
        assert passes == buckets([row for row in rows if row.slot == slot], COST, 300)


def of_lengths(*lengths: int) -> list[Row]:
    return [Row(slot, [1] * length, [1] * length) for slot, length in enumerate(lengths)]


def test_groups_have_about_as_many_tokens() -> None:
    groups = flat(shared_out(of_lengths(10, 90, 30, 70, 50, 50), 0, 10**6, count=3))
    assert [sum(len(row.ids) for row in group) for group in groups] == [100, 100, 100]


def test_rows_of_like_length_are_in_a_group_where_that_pads_less() -> None:
    groups = shared_out(of_lengths(142, 60, 110, 127, 90, 114, 100, 107), 142, 1024, count=2)
    lengths = [sorted(len(row.ids) for row in group) for group in flat(groups)]
    assert lengths == [[60, 90, 100, 107, 110], [114, 127, 142]]


@given(ROWS, st.integers(2, 4))
def test_no_group_costs_more_than_where_tokens_alone_decide(rows, count) -> None:
    found = shared_out(rows, COST, 800, count=count)
    evenly = [buckets(group, COST, 800) for group in _evenly([list(of) for of in by_slot(rows)], count)]
    assert max(map(cost, found), default=0) <= max(map(cost, evenly), default=0)


def by_slot(rows: list[Row]) -> list[list[Row]]:
    return [[row for row in rows if row.slot == slot] for slot in sorted({row.slot for row in rows})]


def test_streams_that_bring_as_many_rows_are_one_block_each_and_ragged_ones_a_block_a_row() -> None:
    def blocks(*slots: int) -> list[int]:
        return list(Pass.of([Row(slot, [1, 2], [1, 2]) for slot in slots], torch.device("cpu")).blocks)

    assert blocks(1, 0, 1, 0) == [0, 1]
    assert blocks(1, 0, 1) == [0, 1, 1]


def test_supervised_positions_are_those_before_the_tokens_that_count() -> None:
    rows = [Row(1, [5, 6, 7], [5, -100, 7], weight=0.5), Row(0, [8, 9], [8, 9], weight=0.25)]
    made = Pass.of(rows, torch.device("cpu"))
    assert made.ids.tolist() == [[8, 9, 0], [5, 6, 7]]
    assert made.positions.tolist() == [0, 4]  # (R * T)
    assert made.targets.tolist() == [9, 7]
    assert made.owners.tolist() == [0, 1]
    assert made.weights.tolist() == [0.25, 0.5]
