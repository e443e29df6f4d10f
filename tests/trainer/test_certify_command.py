"""`swarm certify` on the config that ships for it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.runs import swarm_process as sp

ROOT = Path(__file__).parents[2]
CONFIG = "configs/certify.yaml"


def test_streams_that_differ_in_everything_are_certified_in_fp64_and_in_4_bits() -> None:
    done = sp.swarm("certify", CONFIG, "--fp64", "--steps", "3", "--json", cwd=ROOT, check=None, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 2 * 7
    assert {row["against"] for row in rows} == {"alone", "peft"}
    bounds = {row["stream"]: row["bound"] for row in rows}
    assert bounds == {**dict.fromkeys(["small", "lion", "rs", "dora", "wide"], 1e-12), "four": 5e-5, "four-dora": 5e-5}
    for row in rows:
        assert row["holds"], row
        assert max(row["loss"], row["weights"]) <= row["bound"]
        assert row["steps"] == 3


def test_a_difference_above_its_bound_is_exit_status_1_and_says_how_to_tell_rounding_from_a_fault() -> None:
    done = sp.swarm(
        "certify",
        CONFIG,
        "streams.small.learning_rate=0.5",
        "--stream",
        "small",
        "--steps",
        "6",
        cwd=ROOT,
        check=None,
        timeout=240,
    )
    assert done.returncode == 1
    assert "NO" in done.stdout
    assert "--fp64" in done.stderr


def test_rounding_that_peft_has_too_widens_the_bound_and_is_printed(capsys, monkeypatch) -> None:
    from trainer import certify
    from trainer.loop.certify import Certificate

    certificate = Certificate("small", "peft", 4, 1e-7, {"lora_B": 2.4e-5}, 4e-5, rounding=2e-5)
    monkeypatch.setattr(certify, "_streams_of", lambda path: {})
    monkeypatch.setattr(certify, "certified", lambda *_, **__: [certificate])
    assert certify.main(["--settings", "-"]) == 0
    assert (
        "small: its bound is 4e-05: PEFT in fp32, on bases one rounding apart, ends up to 2.0e-05 from"
        in capsys.readouterr().out
    )


def test_a_stream_that_fails_and_one_that_is_not_there_are_users_errors() -> None:
    done = sp.swarm(
        "certify", CONFIG, "streams.rs.learning_rate=1e38", "--stream", "rs", cwd=ROOT, check=None, timeout=240
    )
    assert done.returncode == 2
    assert done.stderr.startswith("rs: ")
    assert done.stderr.rstrip().endswith("; lower learning_rate")
    done = sp.swarm("certify", CONFIG, "--stream", "sr", cwd=ROOT, check=None)
    assert done.returncode == 2
    assert done.stderr.startswith("--stream: no stream 'sr'; there is small, ")
