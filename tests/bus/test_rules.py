"""Rules for source files: what `bus` may import, that no other package uses 0MQ, and that no data is executed as code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "bus").glob("*.py"))
OTHERS = [path for name in ("swarm", "trainer", "toon", "tui") for path in (ROOT / name).rglob("*.py")]
CODE_FROM_DATA = re.compile(
    r"\bpickle\b|pyobj|\bdill\b|\bmarshal\b|\bshelve\b|\bjoblib\b|torch\.load\((?![^)\n]*weights_only=True)|yaml\.(?:unsafe|full)_load|yaml\.load\("
    r"|weights_only=False|trust_remote_code=True|(?<![.\w])(?:eval|exec)\(|os\.system|shell=True|allow_pickle|numpy\.load|np\.load"
    r"|\btarfile\b|\bzipfile\b|unpack_archive"  # archives of others are never unpacked either
)
KNOWN_USES = {("toon/row_lines.py", "exec("): "made from a table's width alone; no text gets in"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_bus_stands_on_the_standard_library_zmq_and_msgpack_alone(path):
    assert set(imported(path)) - set(sys.stdlib_module_names) <= {"bus", "toon", "zmq", "msgpack"}


def test_nothing_that_is_read_or_received_is_ever_run_or_unpickled():
    found = {
        (str(path.relative_to(ROOT)), word)
        for path in [*SOURCES, *OTHERS]
        for word in CODE_FROM_DATA.findall(path.read_text())
    }
    assert found == set(KNOWN_USES)


def test_zmq_is_imported_nowhere_else():
    assert [path for path in OTHERS if "zmq" in set(imported(path))] == []


def test_the_pure_modules_load_no_zmq():
    code = "import sys, bus.envelope, bus.liveness, bus.outbox, bus.intake, bus.budget, bus.spool; print('zmq' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        == "False\n"
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_file_has_a_docstring_and_at_most_350_lines(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 350
