"""The sealed examination: a real gain passes, an adapter that changes nothing fails, overlap refuses, and no row gets out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from swarm.errors import UserError
from swarm.settings import StreamSettings
from swarm.weights import ADAPTER
from tests.trainer.conftest import Bench
from tests.trainer.roles.test_judging import a_trained, folder_of, handed_in

Make = Callable[..., StreamSettings]
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
SECRET = "zebra"


@pytest.fixture
def sealed_file(tmp_path: Path) -> Path:
    path = tmp_path / "sealed.jsonl"
    rows = [{"prompt": f"double {n} {SECRET}", "completion": str(2 * n)} for n in range(100, 130)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def chosen(settings: Make, sealed_file: Path) -> StreamSettings:
    return settings(sealed_datasets=[{"path": str(sealed_file), "type": "prompt_completion"}], max_steps=12)


def sealed(bench: Bench, chosen: StreamSettings, given: dict[str, object]):
    return bench.do("sealed", chosen, **given)["sealed"]


def test_a_real_gain_passes_and_only_sums_are_said(bench: Bench, chosen: StreamSettings) -> None:
    found = sealed(bench, chosen, a_trained(bench, chosen))
    assert (found.result, found.rows, found.overlap) == ("SUCCESS", 30, 0)
    assert found.figures["sealed_loss"] < found.figures["base_sealed_loss"]
    assert found.facts().keys() == {
        *("tok", "sha256", "result", "rows", "overlap", "why"), *("sealed_loss", "base_sealed_loss")
    }  # fmt: skip
    assert SECRET not in "".join(message.toon() for message in bench.said)
    files = [path for path in bench.place.run_folder.rglob("*") if path.is_file() and path.name != "sealed.jsonl"]
    assert files and not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_an_adapter_that_changes_nothing_fails(bench: Bench, chosen: StreamSettings) -> None:
    given = a_trained(bench, chosen)
    tensors = load_file(folder_of(bench, given) / ADAPTER)
    nothing = save({name: torch.zeros_like(value) if ".lora_B." in name else value for name, value in tensors.items()})
    found = sealed(bench, chosen, handed_in(bench, given, nothing, None))
    assert found.result == "FAIL"
    assert found.why.startswith("not better than the base by more than chance")


def test_rows_that_were_trained_on_refuse_the_examination(
    bench: Bench, chosen: StreamSettings, sealed_file: Path, rows_file: Path
) -> None:
    given = a_trained(bench, chosen)
    lines = rows_file.read_text().splitlines()
    with sealed_file.open("a") as file:
        file.write("\n".join(lines) + "\n")
    found = sealed(bench, chosen, given)
    assert (found.result, found.figures) == ("FAIL", {})
    assert (
        40 <= found.overlap <= 60
        and found.why == f"{found.overlap} training rows equal sealed rows, so nothing was measured"
    )


@pytest.mark.parametrize("bad", [f'{{"prompt": "{SECRET}"}}', f"{{{SECRET}", f'{{"{SECRET}": 1}}'])
def test_a_row_that_cannot_be_read_is_not_quoted(
    bench: Bench, chosen: StreamSettings, sealed_file: Path, capfd: pytest.CaptureFixture[str], bad: str
) -> None:
    given = a_trained(bench, chosen)
    sealed_file.write_text(bad + "\n")
    with pytest.raises(UserError, match=r"^sealed_datasets: cannot be judged \(\w+\); check their file") as caught:
        sealed(bench, chosen, given)
    assert SECRET not in str(caught.value) and caught.value.__cause__ is None and caught.value.__suppress_context__
    assert SECRET not in "".join(capfd.readouterr())
