"""Prepared rows on disk: counted, held out without overlap, shared by content, and never half there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.errors import UserError
from swarm.policy.holding_out import held_out_count
from swarm.settings import StreamSettings
from swarm.weights import MANIFEST, sha256_of
from tests.trainer.conftest import Bench
from trainer.data.prepared import HELD_OUT, TRAIN, read_rows
from trainer.errors import LeaseStopped

Make = Callable[..., StreamSettings]


def dataset(path: Path) -> list[dict[str, str]]:
    return [{"path": str(path), "type": "prompt_completion"}]


def doubles(path: Path, numbers: range) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"double {n}", "completion": str(2 * n)}) + "\n" for n in numbers))
    return path


def test_rows_are_held_out_without_overlap_and_counted(bench: Bench, settings: Make) -> None:
    done = bench.do("prepare", settings())
    prepared, folder = done["prepared"], bench.place.run_folder / done["prepared"].path
    train, held_out = list(read_rows(folder / TRAIN)), list(read_rows(folder / HELD_OUT))
    assert (prepared.rows, prepared.held_out) == (len(train), len(held_out)) == (48, 12)
    assert not {row.fingerprint for row in train} & {row.fingerprint for row in held_out}
    assert prepared.tokens == sum(len(row.ids) for row in train)
    assert prepared.supervised == sum(row.supervised for row in train)
    assert prepared.sha256 == sha256_of(folder / MANIFEST)
    assert (prepared.rows, prepared.held_out, prepared.body) == (48, 12, "")


ROWS_OF_ALL_KINDS = """
import sys
from pathlib import Path
import pyarrow as pa
from trainer.data.prepared import ROWS, RowFile, read_rows
from trainer.data.tokens import Tokens

rows = [
    Tokens([3, 70000], [-100, 5], 1, 1, b"\\x00\\xff", [7, 8], "naïve", [-1, 127], [9]),
    Tokens([], [], 0),
    Tokens([1] * 3, [-100] * 3, 3, 0, b"", (), "", (), [2**31 - 1]),
] * 300
folder = Path(sys.argv[1])
with RowFile(folder / "rows.arrow") as file:
    for row in rows:
        file.add(row)
assert list(read_rows(folder / "rows.arrow")) == rows
assert "pandas" not in sys.modules, "a quarter of a second that no row needs"

whole = pa.ipc.open_stream(pa.memory_map(str(folder / "rows.arrow"))).read_all()
whole.validate(full=True)
assert whole.equals(pa.Table.from_pylist(whole.to_pylist(), schema=ROWS)), "as pyarrow makes it of lists"
"""


def test_a_file_of_rows_is_what_pyarrow_would_make_of_them(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ROWS_OF_ALL_KINDS, tmp_path], check=True)


def test_streams_that_ask_for_the_same_share_it_and_a_torn_one_is_made_again(bench: Bench, settings: Make) -> None:
    first = bench.do("prepare", settings())["prepared"]
    again = bench.do("prepare", settings(lora_r=32, seed=7, learning_rate=1e-4))["prepared"]
    assert (again.path, again.sha256) == (first.path, first.sha256)
    assert bench.do("prepare", settings(sequence_len=32))["prepared"].path != first.path
    (bench.place.run_folder / first.path / TRAIN).write_bytes(b"torn")
    assert bench.do("prepare", settings())["prepared"].sha256 == first.sha256
    assert len(list((bench.place.run_folder / "prepared").iterdir())) == 2


def test_the_same_data_elsewhere_has_the_same_hash(
    bench: Bench, settings: Make, tmp_path: Path, rows_file: Path
) -> None:
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(rows_file.read_bytes())
    first = bench.do("prepare", settings())["prepared"]
    assert bench.do("prepare", settings(datasets=dataset(copy)))["prepared"].sha256 == first.sha256


def test_a_bad_row_ends_it_with_file_and_line_or_is_set_aside(bench: Bench, settings: Make, tmp_path: Path) -> None:
    path = doubles(tmp_path / "x.jsonl", range(20))
    path.write_text(path.read_text() + '{"prompt": "no answer"}\n')
    given = settings(datasets=dataset(path), val_set_size=4)
    with pytest.raises(UserError, match=r"x\.jsonl:21: no column 'completion' .*; .*on_bad_row: skip$"):
        bench.do("prepare", given)
    assert list((bench.place.run_folder / "prepared").iterdir()) == []
    prepared = bench.do("prepare", settings(datasets=dataset(path), val_set_size=4, on_bad_row="skip"))["prepared"]
    assert (prepared.rows, prepared.bad) == (16, 1)
    (kept,) = (bench.place.run_folder / prepared.path / "bad_rows.jsonl").read_text().splitlines()
    assert json.loads(kept)["where"] == f"{path}:21"
    assert "x.jsonl:21" in prepared.body


def test_held_out_files_with_rows_that_are_trained_on_are_refused_unless_the_user_accepts_it(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    train, test = doubles(tmp_path / "train.jsonl", range(10)), doubles(tmp_path / "test.jsonl", range(8, 14))
    given = {"datasets": dataset(train), "test_datasets": dataset(test)}
    with pytest.raises(
        UserError,
        match=r"test_datasets: 2 training rows equal held-out rows \(.*test.jsonl:1, .*:2\); .*allow_overlap: true",
    ):
        bench.do("prepare", settings(**given))
    done = bench.do("prepare", settings(**given, allow_overlap=True))["prepared"]
    assert (done.rows, done.held_out) == (10, 6)
    assert "warning: 2 training rows equal held-out rows" in done.body


def test_rows_that_were_cut_before_their_answer_are_left_out_and_told(
    bench: Bench, settings: Make, tmp_path: Path
) -> None:
    path = doubles(tmp_path / "x.jsonl", range(20))
    path.write_text(path.read_text() + json.dumps({"prompt": "long " * 40, "completion": "1"}) + "\n")
    done = bench.do("prepare", settings(datasets=dataset(path), val_set_size=2))["prepared"]
    assert (done.rows, done.held_out) == (18, 2)
    assert "1 rows were cut before their answer and left out" in done.body


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val_set_size": 0}, "no rows are held out for validation"),
        ({"val_set_size": 60}, "none are left to train on"),
        ({"sequence_len": 8}, "8 tokens cut 60 of 60 rows before their answer"),
        ({"sequence_len": 513}, "sequence_len: 513, and the base reads 512 tokens"),
    ],
)
def test_settings_that_leave_nothing_are_refused(
    bench: Bench, settings: Make, changes: dict[str, float], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        bench.do("prepare", settings(**changes))


def test_a_stop_while_preparing_leaves_nothing_behind(
    bench: Bench, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.lease.Lease.stopped", property(lambda lease: (lease.step or 0) >= 5))
    with pytest.raises(LeaseStopped):
        bench.do("prepare", settings())
    assert list((bench.place.run_folder / "prepared").iterdir()) == []


@pytest.mark.parametrize(("rows", "size", "count"), [(60, 0.1, 6), (60, 12, 12), (7, 0.01, 1)])
def test_a_share_of_the_rows_is_held_out_or_a_number_of_them_and_one_at_least(
    rows: int, size: float, count: int
) -> None:
    """G16: 90 to 10."""
    assert held_out_count(rows, size) == count


@pytest.mark.parametrize("whole", [False, True])
def test_a_stream_is_trained_on_its_prompts_too_where_it_says_so(bench: Bench, settings: Make, whole: bool) -> None:
    """D35."""
    done = bench.do("prepare", settings(train_on_inputs=whole))["prepared"]
    assert (done.supervised == done.tokens) is whole
