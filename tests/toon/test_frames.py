"""Many documents in one stream: they come back whole, in order, and around whatever was lost or torn."""

from __future__ import annotations

import random
from time import process_time
from typing import Any

import pytest

import toon
from tests.toon.drawn import document
from tests.toon.hostile import assert_doubling
from toon.frames import Frame, FrameReader, FrameWriter, Gap, read_frames


def stream(count: int = 8) -> tuple[bytes, list[bytes], list[Any]]:
    """A stream, its frames as bytes, and what is in them."""
    frames: list[bytes] = []
    writer = FrameWriter(frames.append)
    values: list[Any] = []
    draw = random.Random(9)
    for number in range(count):
        values.append({"number": number, "value": document(draw)})
        writer.write(values[-1])
    with writer.rows(["a", "b"], batch_rows=2) as rows:
        values.append([])
        for number in range(5):
            rows.write([number, "x: \n#toon 1 doc 4 00000000"])
    values += [[{"a": n, "b": "x: \n#toon 1 doc 4 00000000"} for n in pair] for pair in ((0, 1), (2, 3), (4,))]
    writer.write("last")
    return b"".join(frames), frames, [*values, "last"]


def values_of(items: Any) -> list[Any]:
    return [item.value for item in items if isinstance(item, Frame)]


def test_what_is_framed_comes_back_in_order() -> None:
    data, frames, values = stream()
    items = list(read_frames([data]))
    assert values_of(items) == values
    assert [item.number for item in items if isinstance(item, Frame)] == list(range(1, len(frames) + 1))
    assert not [item for item in items if isinstance(item, Gap)]


def test_a_stream_can_be_cut_into_any_chunks() -> None:
    data, _, values = stream(3)
    for size in (1, 2, 3, 7, 64, 1000):
        assert values_of(read_frames(data[at : at + size] for at in range(0, len(data), size))) == values


def test_a_lost_frame_is_a_gap_and_nothing_else_is_lost() -> None:
    _, frames, values = stream()
    for lost in range(8):
        items = list(read_frames([b"".join(frames[:lost] + frames[lost + 1 :])]))
        assert values_of(items) == values[:lost] + values[lost + 1 :]
        gaps = [item for item in items if isinstance(item, Gap)]
        assert [(gap.expected, gap.found) for gap in gaps] == ([(lost + 1, lost + 2)] if lost else [])


def test_a_lost_header_costs_its_rows_and_says_so() -> None:
    _, frames, _ = stream()
    items = list(read_frames([b"".join(frames[:8] + frames[9:])]))
    assert values_of(items)[-1] == "last"
    assert sum("whose header" in item.reason for item in items if isinstance(item, Gap)) == 3


def test_a_torn_frame_is_passed_over_wherever_it_is_torn_and_however_it_arrives() -> None:
    _, frames, values = stream(4)
    for cut in range(1, len(frames[1])):
        data = frames[0] + frames[1][:cut] + b"".join(frames[2:])
        for size in (len(data), 5):
            items = list(read_frames(data[at : at + size] for at in range(0, len(data), size)))
            if (
                cut == len(frames[1]) - 1
            ):  # only the newline after it is gone, and with it the next frame's start of line
                assert values_of(items)[0] == values[0] and values_of(items)[-1] == "last"
            elif frames[1][cut - 1 : cut] == b"\n":
                assert values_of(items)[0] == values[0] and values_of(items)[2:] == values[3:]
            else:
                assert values[3] in values_of(items) and values_of(items)[-1] == "last"


def test_random_damage_never_gives_a_value_that_was_not_sent() -> None:
    data = stream()[0]
    sent = [repr(value) for value in values_of(read_frames([data]))]
    draw = random.Random(4)
    for _ in range(1500):
        hurt = bytearray(data)
        for _ in range(1 + draw.randrange(3)):
            at = draw.randrange(len(hurt))
            if draw.random() < 0.5:
                hurt[at] ^= 1 << draw.randrange(8)
            else:
                del hurt[at : at + draw.randrange(1, 30)]
        got = [repr(value) for value in values_of(read_frames([bytes(hurt)]))]
        assert set(got) <= set(sent)
        assert len(got) >= len(sent) - 8


def test_noise_before_between_and_after_frames_is_one_gap_each() -> None:
    _, frames, values = stream(2)
    data = b"noise\nmore" + b"\n" + frames[0] + b"what is this\n" + frames[1] + b"tail"
    items = list(read_frames([data]))
    assert values_of(items) == values[:2]
    assert [type(item).__name__ for item in items] == ["Gap", "Frame", "Gap", "Frame", "Gap"]


def test_a_head_that_declares_too_much_is_damage_and_not_a_wait() -> None:
    _, frames, values = stream(2)
    reader = FrameReader(limits=toon.Limits(max_bytes=1000))
    items = list(reader.feed(b"#toon 1 doc 999999999999 00000000\n" + frames[0]))
    assert values_of(items) == values[:1]
    reader = FrameReader()
    items = list(reader.feed(b"#toon 1 doc 5000 00000000\n" + frames[1]))  # not complete, but another frame has begun
    assert values_of(items) == values[1:2]


def _hostile_stream(size: int) -> bytes:
    """Heads that each declare half of the stream, cut so that a newline follows."""
    head = b"#toon 1 doc %012d 00000000\n"
    length = len(head % 0)
    return (head % (size // length // 2 * length - 1)) * (size // length)


def test_a_frame_with_a_head_inside_is_none_even_if_its_checksum_fits() -> None:
    from toon.frames import _checksum

    inner: list[bytes] = []
    FrameWriter(inner.append).write("inner")
    payload = b"a: 1\n" + inner[0] + b"b: 2"
    frame = b"#toon 7 doc %d %08x\n%s\n" % (len(payload), _checksum(7, "doc", payload), payload)
    for size in (len(frame), 3):
        items = list(read_frames(frame[at : at + size] for at in range(0, len(frame), size)))
        assert values_of(items) == ["inner"]


@pytest.mark.parametrize("chunk", [1000, 10**9])
def test_heads_that_declare_half_the_stream_cost_time_in_proportion_to_it(chunk: int) -> None:
    def seconds(size: int) -> float:
        data = _hostile_stream(size)
        start = process_time()
        items = list(read_frames(data[at : at + chunk] for at in range(0, len(data), chunk)))
        assert [type(item) for item in items] == [Gap]
        return process_time() - start

    assert_doubling(lambda: (seconds(400_000), seconds(800_000)))


def test_a_large_header_is_read_once_for_all_its_rows() -> None:
    def seconds(size: int) -> float:
        frames: list[bytes] = []
        rows = FrameWriter(frames.append).rows(["c" * size], batch_rows=1)
        for number in range(size // 100):
            rows.write([number])
        start = process_time()
        assert len(list(read_frames(frames))) == 1 + size // 100
        return process_time() - start

    assert_doubling(lambda: (seconds(200_000), seconds(400_000)))


def test_headers_of_tables_long_out_of_use_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toon.frames.KEPT_HEADERS", 2)
    frames: list[bytes] = []
    writer = FrameWriter(frames.append)
    first, second = writer.rows(["a"], batch_rows=1), writer.rows(["b"], batch_rows=1)
    first.write([1])
    writer.rows(["c"])
    second.write([2])
    first.write([3])
    items = list(read_frames(frames))
    assert values_of(items) == [[], [], [{"a": 1}], [], [{"a": 3}]]
    assert [item.reason for item in items if isinstance(item, Gap)] == [
        "rows whose header, frame 2, was lost or is too long ago"
    ]


def test_the_headers_kept_are_no_larger_than_a_document_may_be() -> None:
    frames: list[bytes] = []
    writer = FrameWriter(frames.append)
    reader = FrameReader(limits=toon.Limits(max_bytes=1000))
    for number in range(20):
        writer.rows([f"{number}" + "x" * 300])
    assert len(values_of(reader.feed(b"".join(frames)))) == 20
    assert len(reader._heads) == 3


def test_a_head_frame_without_a_header_is_an_error() -> None:
    from toon.frames import _checksum

    for payload in (b"a: 1", b"[0]: ", b"a[0]{x}:", b"[0]{a}:\n  1"):
        frame = b"#toon 1 head %d %08x\n%s\n" % (len(payload), _checksum(1, "head", payload), payload)
        with pytest.raises(toon.ToonError) as caught:
            list(read_frames([frame]))
        assert caught.value.code == "header"


def test_a_fault_in_framed_rows_has_its_line_and_path() -> None:
    from toon.frames import _checksum

    frames: list[bytes] = []
    FrameWriter(frames.append).rows(["a", "b"])
    payload = b"  1,2\n  3"
    frame = b"#toon 2 rows/1 %d %08x\n%s\n" % (len(payload), _checksum(2, "rows/1", payload), payload)
    with pytest.raises(toon.ToonError) as caught:
        list(read_frames([*frames, frame]))
    assert (caught.value.code, caught.value.line, caught.value.path) == ("width", 3, "[1]")


def test_a_continued_stream_goes_on_counting() -> None:
    frames: list[bytes] = []
    FrameWriter(frames.append).write(1)
    second = FrameWriter(frames.append, first_number=2)
    second.write(2)
    assert list(read_frames(frames)) == [Frame(1, "doc", 1), Frame(2, "doc", 2)]
    assert second.number == 3


def test_a_stream_of_one_table_is_itself_a_document() -> None:
    frames: list[bytes] = []
    with FrameWriter(frames.append).rows(["a"], batch_rows=1) as rows:
        rows.write([1])
        rows.write([2])
    assert toon.decode(b"".join(frames), strict=False) == [{"a": 1}, {"a": 2}]


def test_a_whole_frame_that_holds_no_document_is_an_error() -> None:
    from toon.frames import _checksum

    payload = b"a: 1\na: 2"
    frame = b"#toon 1 doc %d %08x\n%s\n" % (len(payload), _checksum(1, "doc", payload), payload)
    with pytest.raises(toon.ToonError) as caught:
        list(read_frames([frame]))
    assert caught.value.code == "duplicate"
