"""Keys of documents in a config: their forms are read, and one that would change nothing is refused where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config import load
from swarm.errors import UserErrors

BEGIN = "name: x\ndefaults: {base_model: tiny-toon}\n"


def read(tmp_path: Path, text: str):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(f"the words of {name}")
    path = tmp_path / "my.yaml"
    path.write_text(BEGIN + text)
    return load(path, cwd=tmp_path).run.streams


def test_token_ids_are_text_a_number_or_a_list(tmp_path: Path) -> None:
    """C36-C39."""
    text = """streams:
  one: {datasets: [{path: a.txt, type: document, document_suffix: 7, document_prefix: [1, 2]}], mask_tokens: true, sequence_prefix: ""}
  two: {datasets: [{path: a.txt, type: document, document_suffix: "\\n"}], mask_tokens: [3], sequence_prefix: 5, packing: bfd, isolate_documents: true}
"""
    one, two = read(tmp_path, text).values()
    assert (one.datasets[0].document_suffix, one.datasets[0].document_prefix) == (7, [1, 2])
    assert (one.mask_tokens, one.sequence_prefix, two.mask_tokens, two.sequence_prefix) == (True, "", [3], 5)


@pytest.mark.parametrize(
    ("dataset", "stream", "expected"),
    [
        ("", "drop_tails: true", "drop_tails: no dataset has documents; write `type: document` in `datasets`, or leave it out"),
        ("", "mask_tokens: 3", "mask_tokens: no dataset has documents; write `type: document` in `datasets`, or leave it out"),
        (", document_suffix: x", "", "datasets.0.document_suffix: of documents alone; write `type: document`, or leave it out"),
        (", max_tokens: 9", "", "datasets.0.max_tokens: of documents alone; write `type: document`, or leave it out"),
        (", type: document, prompt_template: alpaca", "", "datasets.0.prompt_template: rows of `type: document` have no prompt that a template could write; write `type: prompt_completion`, or leave it out"),
        (", type: document", "mix_datasets: true, isolate_documents: true", "mix_datasets: a sequence holds one document; leave one of them out"),
        (", type: document", "mask_tokens: some", "mask_tokens: expected true, false, a whole number or a list of whole numbers, got 'some'; the default is false"),
        (", type: document", "test_datasets: [{path: b.txt, type: document, max_tokens: 9}]", "test_datasets.0.max_tokens: held-out documents are judged whole; leave it out, or set `limit`"),
    ],
    ids=str,
)  # fmt: skip
def test_what_would_change_nothing_is_refused(tmp_path: Path, dataset: str, stream: str, expected: str) -> None:
    with pytest.raises(UserErrors) as caught:
        read(tmp_path, f"streams:\n  one: {{datasets: [{{path: a.txt{dataset}}}], {stream}}}\n")
    assert f"streams.one.{expected}" in str(caught.value)
