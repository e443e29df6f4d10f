"""`swarm lineage`: who made, judged and promoted an adapter, and whether files and config are still those of the log."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from swarm import config
from swarm import events as ev
from swarm.artifacts.lineage import lineage
from swarm.cli import app
from swarm.log import LogWriter
from swarm.weights import sha256_of

from .test_publish import SETTINGS, Bench

CONFIG = """
name: demo
defaults: {base_model: tiny-toon, datasets: [{path: train.jsonl}]}
streams: {wide: {lora_r: 8}}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A run whose only adapter ada has promoted, with its files, its config and its log."""
    made = Bench(tmp_path / "run")
    made.folder.path.mkdir()
    made.train("good")
    made.story.judged("wide")
    made.story.say("coordinator", made.publish())
    made.story.say("ada", made.promote("the best"))
    configure(made, tmp_path, CONFIG)
    begun = ev.Run(ref="run", name="demo", config_sha256=sha256_of(made.folder.config), streams=1)
    made.story.entries[0] = replace(made.story.entries[0], event=begun)
    with LogWriter.open(made.folder.log) as writer:
        writer.append([(entry.author, entry.event) for entry in made.story.entries])
    return made


def configure(bench: Bench, folder: Path, text: str) -> None:
    (folder / "demo.yaml").write_text(text)
    bench.folder.config.write_text(config.load(folder / "demo.yaml", cwd=folder, files=False).dump())


def told(bench: Bench) -> dict[str, Any]:
    """The only adapter's document."""
    as_json, as_toon = (
        CliRunner().invoke(app, ["lineage", str(bench.folder.path), form]) for form in ("--json", "--toon")
    )
    assert as_json.exit_code == as_toon.exit_code == 0, (as_json.exception, as_toon.exception)
    [document] = json.loads(as_json.stdout)["adapters"]
    return document  # type: ignore[no-any-return]


def shown(bench: Bench) -> dict[str, str]:
    """What stands on a person's screen."""
    lines = CliRunner().invoke(app, ["lineage", str(bench.folder.path)]).stdout.splitlines()
    return dict(line.split(maxsplit=1) for line in lines)


def test_it_says_who_promoted_and_that_all_is_as_the_log_has_it(bench: Bench) -> None:
    document, screen = told(bench), shown(bench)
    assert document["promoted"] == {
        "by": "ada",
        "why": "the best",
        "forced": False,
        "version": "demo-v1",
        "sha256": document["sha256"],
    }
    assert (document["files"], document["promoted_files"], document["config"]) == ("ok", "ok", "ok")
    assert document["config_sha256"] == sha256_of(bench.folder.config)
    assert (screen["promoted"], screen["promoted_by"]) == ("the best", "ada")
    assert (screen["files"], screen["promoted_files"], screen["config"]) == ("ok", "ok", "ok")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_promoted_file_that_was_changed_or_removed_is_reported(bench: Bench, name: str) -> None:
    (bench.folder.promoted / name).write_text('{"lora_alpha": 1600}')
    assert (told(bench)["files"], told(bench)["promoted_files"]) == ("ok", "changed")
    (bench.folder.promoted / name).unlink()
    assert shown(bench)["promoted_files"] == "missing"


def test_settings_that_are_not_those_of_the_run_are_reported_as_changed(bench: Bench, tmp_path: Path) -> None:
    configure(bench, tmp_path, CONFIG.replace("8", "64"))
    assert (told(bench)["config"], shown(bench)["config"]) == ("changed", "changed")


def test_an_adapter_whose_stream_the_config_does_not_name_any_more_is_reported_without_settings(
    bench: Bench, tmp_path: Path
) -> None:
    configure(bench, tmp_path, CONFIG.replace("wide", "narrow"))
    document = told(bench)
    assert (document["stream"], document["config"], document["settings"]) == ("wide", "changed", None)
    bench.folder.config.write_text("streams: [")
    assert told(bench)["config"] == "changed"
    bench.folder.config.unlink()
    assert (told(bench)["config"], shown(bench)["verdict"]) == ("missing", "SUCCESS")


def test_weights_that_were_promoted_before_newer_ones_were_published_go_by_their_own_hash(bench: Bench) -> None:
    old = bench.state.streams["wide"].adapter
    assert old is not None
    bench.story.say("bob", ev.Approve(ref="wide"))
    state = bench.state
    state.streams["wide"].adapter = old.model_copy(update={"sha256": "b" * 64})
    document = lineage("run", state, "wide", SETTINGS)
    assert (document["sha256"], document["promoted"]["sha256"]) == ("b" * 64, old.sha256)
    assert document["approved"] == ["bob"], "who agreed to what was promoted before agreed to other weights"


def test_an_attempt_whose_checkpoint_was_gone_on_from_is_a_parent_though_it_reported_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first = bench.story.claim("wide/train", "trainer-1")
    bench.story.say("coordinator", ev.Expire(ref="wide/train", tok=first, why="its worker died"))
    second = bench.story.claim("wide/train", "trainer-2")
    path = f"streams/wide/t{first}/checkpoint-9"  # whole on the disk: nothing is left to train
    facts = {"tok": second, "path": path, "sha256": bench.weights(path, "good")}
    bench.story.say("trainer-2", ev.Trained(ref="wide/train", step=9, trainable=1, **facts))  # type: ignore[arg-type]
    assert lineage("run", bench.state, "wide", SETTINGS)["parents"]["tokens"] == [first, second]
