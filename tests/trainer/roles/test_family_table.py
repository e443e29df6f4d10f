"""Some rows of docs/families.md anew, drawn by a seed; under `make torture` all of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests import family_rows

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
EVERY = [(family, adapter) for family in family_rows.names() for adapter in family_rows.ADAPTERS]
TORTURE = bool(os.environ.get("TORTURE"))
DRAWN = EVERY if TORTURE else sorted(random.Random(13).sample(EVERY, 3))
REFUSED = {
    ("falcon", "qlora"): "would store no part of this base in 4 bits", ("falcon", "dora + qlora"): "would store no part of this base in 4 bits",
    ("mamba", "qlora"): "multiplies with that matrix itself", ("mamba", "dora + qlora"): "multiplies with that matrix itself",
    ("llama, prequantised NF4", "lora"): "the base is stored in 4 bits (nf4)", ("llama, prequantised NF4", "dora"): "the base is stored in 4 bits (nf4)",
}  # fmt: skip


@pytest.mark.parametrize(("family", "adapter"), DRAWN)
def test_a_family_goes_all_the_way_or_is_refused_by_check_with_its_reason(
    family: str, adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    row = family_rows.tried(family, adapter, family_rows.save_base(family, tmp_path / "base"), tmp_path)
    if (reason := REFUSED.get((family, adapter))) is not None:
        assert list(row.steps) == ["check"]
        assert reason in row.steps["check"]
    else:
        assert row.fine, row


def test_the_table_in_the_docs_has_every_family_with_every_adapter() -> None:
    lines = Path("docs/families.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")][1:]
    assert [(row[0], row[1]) for row in cells] == EVERY
    for family, adapter, *steps in cells:
        if (family, adapter) in REFUSED:
            assert REFUSED[family, adapter] in steps[0]
        else:
            assert steps == ["ok"] * 6
