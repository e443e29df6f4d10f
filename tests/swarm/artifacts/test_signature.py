"""D29: the signature of a provenance manifest is OpenSSH's, by the commands of docs/shipping.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[3] / "docs/shipping.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")


def test_a_lineage_that_was_changed_after_it_was_signed_does_not_verify(tmp_path: Path) -> None:
    sign, verify = re.findall(r"^ssh-keygen .*$", PAGE, re.MULTILINE)
    key, lineage = tmp_path / "key", tmp_path / "promoted" / "lineage.json"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    lineage.parent.mkdir()
    lineage.write_text(json.dumps({"sha256": "ab"}))
    (tmp_path / "allowed_signers").write_text(f"you {key.with_suffix('.pub').read_text()}")
    assert shell(sign.replace("~/.ssh/id_ed25519", str(key)), tmp_path) == 0
    assert shell(verify, tmp_path) == 0
    lineage.write_text(json.dumps({"sha256": "cd"}))
    assert shell(verify, tmp_path) != 0


def shell(command: str, folder: Path) -> int:
    return subprocess.run(command, shell=True, cwd=folder, check=False, capture_output=True).returncode
