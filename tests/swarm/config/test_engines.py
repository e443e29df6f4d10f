"""Rows D01, D21, U07: what the engine of two models cannot do is named at the setting that asks for it, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.config import load
from swarm.errors import UserErrors

PAIR = """\
name: both
streams:
  one:
    method: duo
    val_set_size: 1
    models:
      encoder: {{objective: sft, base_model: tiny-toon, datasets: [{{path: rows.jsonl}}]}}
      decoder: {{base_model: tiny-toon, datasets: [{{path: rows.jsonl}}]{decoder}}}
{stream}"""
ALONE = "the shared engine alone has it, which trains streams of one model; "


@pytest.mark.parametrize(("stream", "decoder", "problem"), [
    ("    fp16: true\n", "", f"my.yaml:9: streams.one.fp16: {ALONE}leave it out"),
    ("", ", fp16: true", f"my.yaml:8: streams.one.models.decoder.fp16: {ALONE}leave it out"),
    ("    controller: {kind: unified, merge: mean}\n", "", f"my.yaml:9: streams.one.controller.merge: {ALONE}leave it out"),
    ("    controller: orbital\n", "", f"my.yaml:9: streams.one.controller: {ALONE}write `controller_adapt: rate`"),
    ("", ", init_lora_weights: pissa", f"my.yaml:8: streams.one.models.decoder.init_lora_weights: {ALONE}leave it out"),
    ("", ", adapter: control, allow_one_class: true", f"my.yaml:8: streams.one.models.decoder.adapter: {ALONE}take another adapter"),
    ("    engine: shared\n", "", "my.yaml:9: streams.one.engine: shared trains streams of one model, and duo has 2; leave it out"),
    ("    packing: bfd\n", "", "my.yaml:7: streams.one.models: the encoder has `packing`, which a model of two cannot have; leave it out"),
    ("    exact: true\n", "", "my.yaml:7: streams.one.models: the encoder has `exact`, which a model of two cannot have; leave it out"),
])  # fmt: skip
def test_what_a_model_of_two_cannot_have_is_one_problem_at_its_own_line(
    tmp_path: Path, stream: str, decoder: str, problem: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "my.yaml").write_text(PAIR.format(stream=stream, decoder=decoder))
    with pytest.raises(UserErrors) as mistakes:
        load(Path("my.yaml"), cwd=tmp_path)
    assert str(mistakes.value).splitlines()[0] == problem
    assert "1 problem" in str(mistakes.value).splitlines()[1]
