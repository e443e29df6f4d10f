"""The hash of an adapter, of files that a stranger may have put there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from swarm.plainfiles import NotPlain
from swarm.weights import ADAPTER, ADAPTER_CONFIG, QUICK_BYTES, adapter_sha256


def adapter(folder: Path, header: bytes, size: int) -> Path:
    (folder / ADAPTER_CONFIG).write_text("{}")
    (folder / ADAPTER).write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(folder / ADAPTER, size)
    return folder


@pytest.mark.parametrize("header", [b"", b"{}", b"[1]", b'{"a": {"data_offsets": [0, 8]}}', b"[" * 99_999])
def test_a_file_of_20_gb_that_is_no_adapter_is_refused_before_it_is_read(tmp_path: Path, header: bytes) -> None:
    folder, began = adapter(tmp_path, header, 20 << 30), time.monotonic()
    with pytest.raises(NotPlain, match="its header does not describe its 21,474,836,480 bytes"):
        adapter_sha256(folder)
    assert time.monotonic() - began < 2


def test_a_large_adapter_that_is_whole_has_its_hash(tmp_path: Path) -> None:
    size = QUICK_BYTES + 1
    header = b'{"a": {"data_offsets": [0, %12d]}}' % (size - 8 - 42)
    assert len(header) == 42
    assert len(adapter_sha256(adapter(tmp_path, header, size))) == 64
