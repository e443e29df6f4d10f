"""What the package shows, what it imports, and files."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

import toon


def test_every_exported_name_exists_and_is_sorted() -> None:
    assert toon.__all__ == sorted(toon.__all__, key=lambda name: (not name[0].isupper(), name))
    for name in toon.__all__:
        assert getattr(toon, name).__module__.startswith("toon.")
    with pytest.raises(AttributeError):
        toon.loads  # noqa: B018


def _loaded(statement: str) -> set[str]:
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    root = Path(toon.__file__).parents[1]
    return set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
        ).stdout.split()
    )


def test_importing_toon_loads_nothing_heavy() -> None:
    assert not _loaded("import toon") & {
        "argparse",
        "asyncio",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "inspect",
        "logging",
        "zlib",
    }


def test_only_the_standard_library_is_imported() -> None:
    modules = [
        "encode",
        "decode",
        "schema",
        "torn",
        "tables",
        "frames",
        "sizes",
        "stream",
        "normal",
        "dump_load",
        "cli",
        "cli_json",
        "cli_rows",
    ]
    loaded = _loaded("; ".join(f"import toon.{module}" for module in modules))
    assert {name.partition(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "toon"}


def test_files_are_written_and_read_by_name_and_by_handle(tmp_path: Path) -> None:
    value = {"name": "é", "rows": [{"a": 1}, {"a": 2}]}
    toon.dump(value, tmp_path / "x.toon", delimiter="|")
    assert (tmp_path / "x.toon").read_bytes() == toon.encode(value, delimiter="|").encode()
    assert toon.load(tmp_path / "x.toon") == toon.load(str(tmp_path / "x.toon")) == value
    with (tmp_path / "x.toon").open("rb") as file:
        assert toon.load(file) == value
    out = io.StringIO()
    toon.dump(value, out)
    assert toon.load(io.StringIO(out.getvalue())) == value
    assert toon.load(io.StringIO("a: 1"), schema={"a": float}) == {"a": 1.0}


def test_what_cannot_be_encoded_leaves_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.toon"
    toon.dump([1], file)
    with pytest.raises(toon.ToonError):
        toon.dump([{1}], file)
    assert toon.load(file) == [1]


def test_a_file_larger_than_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "x.toon").write_text("a: " + "x" * 1000)
    with pytest.raises(toon.ToonError) as caught:
        toon.load(tmp_path / "x.toon", limits=toon.Limits(max_bytes=100))
    assert caught.value.code == "limit"
