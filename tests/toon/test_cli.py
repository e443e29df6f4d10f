"""The command `toon`, run as users run it: files and pipes in, data on stdout, talk on stderr, a status at the end."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import toon
from tests.toon.payloads import session, table
from toon.cli import main


class Told:
    """What one run gave."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Run the command with arguments and standard input."""

    def run_with(*arguments: str, stdin: str | bytes = "") -> Told:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        status = main(arguments)
        out, err = capsysbinary.readouterr()
        return Told(status, out.decode(), err.decode())

    return run_with


def test_json_becomes_toon_and_comes_back(run: Any, tmp_path: Path) -> None:
    source = tmp_path / "run.json"
    source.write_text(json.dumps(session()), encoding="utf-8")
    encoded = run("encode", str(source))
    assert encoded.status == 0 and encoded.out == toon.encode(session()) + "\n"
    assert json.loads(run("decode", stdin=encoded.out).out) == session()
    tabbed = run("encode", "--delimiter", "tab", "--indent", "4", stdin='{"a":[{"b":1},{"b":2}]}')
    assert tabbed.out == "a[2\t]{b}:\n    1\n    2\n"
    assert (
        run("decode", "--indent", "4", "--pretty", stdin=tabbed.out).out
        == '{\n  "a": [\n    {\n      "b": 1\n    },\n    {\n      "b": 2\n    }\n  ]\n}\n'
    )


def test_check_says_where_the_first_fault_is(run: Any) -> None:
    assert run("check", stdin="a: 1\n").status == 0
    told = run("check", stdin='a: 1\nb[2]{x,y}:\n  1,2\n  3,"z')
    assert told.status == 1 and told.out == ""
    assert told.err.startswith("-: line 4, column 7, at b[1].y: expected a closing")
    assert told.err.endswith('\n      3,"z\n          ^\n')
    assert run("check", "--lenient", stdin="a[2]: 1").status == 0


def test_a_cut_document_can_be_salvaged(run: Any) -> None:
    told = run("decode", "--salvage", stdin="runs[3]{a}:\n  1\n  2")
    assert told.status == 1
    assert json.loads(told.out) == {"runs": [{"a": 1}]}
    assert told.err == "-: cut at runs: got 1 of 3\n"


def test_stats_name_the_smallest_form_and_the_losing_parts(run: Any) -> None:
    told = run("stats", stdin=json.dumps({"rows": table(30), "triples": [[1, 2, 3]] * 20}))
    assert told.status == 0
    assert "fewest tokens" in told.out
    assert "TOON loses at triples (array of arrays)" in told.out
    assert "estimates" in told.err
    assert run("stats", stdin="a: 1\nb: 2").out.startswith("form")


def test_rows_stream_between_ndjson_csv_and_toon(run: Any, tmp_path: Path) -> None:
    rows = [{"a": 1, "b": "x,y", "c": None}, {"a": 2.5, "b": 'say "é"', "c": True}]
    ndjson = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    source = tmp_path / "log.ndjson"
    source.write_text(ndjson, encoding="utf-8")
    as_toon = run("rows", str(source))
    assert as_toon.out == '[0]{a,b,c}:\n  1,"x,y",null\n  2.5,"say \\"é\\"",true\n'
    assert run("rows", "--from", "toon", stdin=as_toon.out).out == ndjson
    as_csv = run("rows", "--from", "toon", "--to", "csv", stdin=as_toon.out)
    assert as_csv.out == 'a,b,c\n1,"x,y",\n2.5,"say ""é""",true\n'
    again = run("rows", "--from", "csv", stdin=as_csv.out)
    assert again.out == as_toon.out
    assert run("rows", "--from", "csv", "--text", stdin="a\n1\n").out == '[0]{a}:\n  "1"\n'
    assert run("rows", "--from", "toon", "--path", "runs", stdin="x: 1\nruns[1]{a}:\n  1").out == '{"a":1}\n'
    assert run("rows", "--from", "ndjson", stdin="").out == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "part"),
    [
        (["encode"], '{"a":', 1, "line 1, column 6"),
        (["encode"], b'"\xff"', 1, "UTF-8"),
        (["encode"], "[" * 100_000, 1, "fewer levels"),
        (["encode"], "1" * 5000, 1, "digits"),
        (["encode"], '{"a": [1,\n "x:NaN\\"", NaN]}', 1, "line 2, column 13: no JSON: found NaN"),
        (["encode"], "[-Infinity]", 1, "line 1, column 2"),
        (["encode"], "[1e5, 1e400]", 1, "line 1, column 7: expected a number that a double can hold"),
        (
            ["encode"],
            '[{"a":1,"b":{"a":1}},\n {"a":{},"b":1,"\\u0061":2}]',
            1,
            "line 2, column 16: expected each key once",
        ),
        (["encode"], b'["\xed\xa0\x80"]', 1, "UTF-8"),
        (["stats"], "[1,2", 1, "no JSON"),
        (["stats"], '{"a":1,', 1, "no JSON"),
        (["stats"], '{"a":1,"a":2}', 1, "expected each key once"),
        (["encode", "no/such/file"], "", 2, "no/such/file: No such file"),
        (["decode"], b"a: \xff", 1, "byte 0xff"),
        (["rows"], "", 2, "add --from"),
        (["rows", "--from", "ndjson"], '{"a":1}\n[1]\n', 1, "line 2"),
        (["rows", "--from", "ndjson"], '{"a":1}\n{"b":1}\n', 1, "fields ['a']"),
        (["rows", "--from", "ndjson"], '{"a":1}\n{"a":\n', 1, "line 2"),
        (["rows", "--from", "ndjson"], '{"a":1}\n\n{"a":{"x":1}}\n', 1, "line 3, at [1].a: expected a primitive"),
        (["rows", "--from", "ndjson", "--to", "csv"], '{"a":1,"b":2}\n{"c":9,"a":1}\n', 1, "line 2, at [1]"),
        (["rows", "--from", "ndjson", "--to", "csv"], '{"a":1}\n{"a":[1]}\n', 1, "line 2, at [1].a"),
        (["rows", "--from", "ndjson", "--to", "csv"], '{"a":1}\n{"a":"\\ud800"}\n', 1, "line 2, at [1].a"),
        (["rows", "--from", "ndjson", "--to", "ndjson"], '{"a":1}\n{"a":{"b":"\\ud800"}}\n', 1, "line 2, at [1].a.b"),
        (["rows", "--from", "ndjson", "--to", "ndjson"], '{"a":1}\n{"b":1}\n', 1, "line 2"),
        (["rows", "--from", "ndjson"], '{"a":1}\n{"a":NaN}\n', 1, "line 2, column 6"),
        (["rows", "--from", "csv"], "a,b,a\n1,2,3\n", 1, "line 1: expected each field name once, found 'a' again"),
        (["rows", "--from", "ndjson"], "{}\n", 1, "line 1: expected the names of fields"),
        (["rows", "--from", "csv"], "a\n1\n1e999\n", 1, "line 3: expected a number"),
        (["rows", "--from", "toon", "--to", "csv"], "[1]{a,g{x}}:\n  1,2", 1, "without nested fields"),
        (["rows", "--from", "toon", "--to", "toon"], "[0]{a,g{x}}:", 1, "without nested fields"),
        (["rows", "--from", "csv"], "a,b\n1\n", 1, "expected 2 cells, found 1"),
        (["rows", "--from", "toon", "--strict"], "[2]{a}:\n  1", 1, "expected 2 rows, found 1"),
    ],
)
def test_errors_are_reported_on_stderr_with_a_status(
    run: Any, arguments: list[str], stdin: str | bytes, status: int, part: str
) -> None:
    told = run(*arguments, stdin=stdin)
    assert told.status == status
    assert part in told.err
    assert "Traceback" not in told.err


def test_cells_go_by_the_name_of_their_column(run: Any) -> None:
    rows = '{"a":1,"b":2}\n{"b":3,"a":4}\n'
    assert run("rows", "--from", "ndjson", "--to", "csv", stdin=rows).out == "a,b\n1,2\n4,3\n"
    assert run("rows", "--from", "ndjson", "--to", "toon", stdin=rows).out == "[0]{a,b}:\n  1,2\n  4,3\n"
    assert run("rows", "--from", "ndjson", "--to", "ndjson", stdin=rows).out == '{"a":1,"b":2}\n{"a":4,"b":3}\n'


def test_a_table_without_rows_keeps_its_fields(run: Any) -> None:
    assert run("rows", "--from", "csv", stdin="a,b\n").out == "[0]{a,b}:\n"
    assert run("rows", "--from", "csv", "--to", "csv", stdin="a,b\n").out == "a,b\n"
    assert run("rows", "--from", "toon", "--to", "csv", stdin="[0]{a,b}:").out == "a,b\n"
    assert run("rows", "--from", "toon", "--to", "toon", stdin="[0]{a,b}:").out == "[0]{a,b}:\n"
    assert run("rows", "--from", "csv", "--to", "ndjson", stdin="a,b\n").out == ""


def test_in_csv_null_is_the_empty_cell_and_text_stays_text(run: Any) -> None:
    rows = '{"a":null,"b":"null","c":true}\n'
    as_csv = run("rows", "--from", "ndjson", "--to", "csv", stdin=rows).out
    assert as_csv == "a,b,c\n,null,true\n"
    assert run("rows", "--from", "csv", "--to", "csv", stdin=as_csv).out == as_csv
    assert run("rows", "--from", "csv", "--to", "ndjson", stdin=as_csv).out == rows
    texts = run("rows", "--from", "csv", "--to", "ndjson", "--text", stdin=as_csv).out
    assert texts == '{"a":"","b":"null","c":"true"}\n'


def test_nested_fields_of_a_table_go_to_ndjson(run: Any) -> None:
    table = "[1]{a,g{x}}:\n  1,2"
    assert run("rows", "--from", "toon", "--to", "ndjson", stdin=table).out == '{"a":1,"g":{"x":2}}\n'


@pytest.mark.parametrize("command", ["encode", "decode", "check"])
def test_an_indentation_of_no_spaces_is_wrong_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--indent", "0"])
    assert stopped.value.code == 2
    assert "positive number of spaces" in capsys.readouterr().err


def test_a_toon_array_is_not_taken_for_broken_json(run: Any) -> None:
    assert run("stats", stdin="[2]: 1,2").status == 0
    assert run("stats", stdin="[1]{a}:\n  1").status == 0


@pytest.mark.parametrize("command", ["encode", "decode", "check", "stats", "rows"])
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert f"example:\n  toon {command}" in capsys.readouterr().out


def test_it_runs_as_a_module_in_a_pipe_that_closes_early() -> None:
    root = Path(toon.__file__).parents[1]
    script = f"{sys.executable} -m toon rows --from csv --to ndjson | head -1"
    lines = "a\n" + "1\n" * 200_000
    told = subprocess.run(["sh", "-c", script], input=lines, capture_output=True, text=True, cwd=root, check=False)
    assert told.stdout == '{"a":1}\n'
    assert told.stderr == ""
