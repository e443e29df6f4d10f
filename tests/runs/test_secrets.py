"""Access tokens and keys: they reach no file of a run and no output, whatever goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.redaction import INSTEAD
from swarm.rundir import RunFolder
from tests.runs import swarm_process as sp

PLANTED = {
    "HF_TOKEN": "hf_PlantedPlantedPlantedPlanted01",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+access=key",
}
CODE = '''\
import os
from transformers import LlamaForCausalLM


class Leaky(LlamaForCausalLM):
    """A base whose own code names secrets when it fails, as some network libraries do."""

    def forward(self, *args, **kwargs):
        raise RuntimeError("401 for Bearer " + " ".join(os.environ[name] for name in {names}))
'''
CONFIG_WITH_TOKENS = """\
name: q
hub_token: {HF_TOKEN}
defaults:
  base_model: tiny-toon
  datasets: [{{path: train.jsonl}}]
  learning_rate: {HF_TOKEN}
  sequence_length: {WANDB_API_KEY}
  val_set_size: 0.1
streams:
  a: {{base_model: "https://ada:{WANDB_API_KEY}@host/base"}}
  b: {{datasets: [{{path: "hf_OtherOtherOtherOther/rows"}}]}}
"""


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    yield from sp.end_everything(tmp_path)


def leaky_base(folder: Path) -> Path:
    base = folder / "leaky"
    shutil.copytree("trainer/embedded/tiny-toon", base)
    (base / "leaky.py").write_text(CODE.format(names=list(PLANTED)))
    config = json.loads((base / "config.json").read_text())
    auto = {"AutoModelForCausalLM": "leaky.Leaky"}
    (base / "config.json").write_text(json.dumps({**config, "auto_map": auto}))
    return base


def leaks(text: bytes, secrets: Iterator[str] | list[str]) -> list[str]:
    return [secret for secret in secrets if secret.encode() in text]


def files_of(folder: RunFolder) -> Iterator[Path]:
    return (path for path in folder.path.rglob("*") if path.is_file())


def test_a_failing_base_that_names_them_leaks_no_token_into_the_run_and_keys_of_the_bus_stay_in_their_files(
    tmp_path: Path,
) -> None:
    base = leaky_base(tmp_path)
    streams = f"  fine: {{lora_r: 2}}\n  leaky: {{base_model: {base}, trust_remote_code: true}}"
    config = sp.write_config(tmp_path, streams=streams, steps=2)
    said = [sp.swarm("run", config.name, cwd=tmp_path, check=1)]
    folder = RunFolder(next((tmp_path / "runs").iterdir()))
    for command in ("status", "log", "digest", "lineage", "export", "env"):
        words = [command] if command == "env" else [command, str(folder.path)]
        said.append(sp.swarm(*words, cwd=tmp_path, check=None))
    assert f"401 for Bearer {INSTEAD}" in sp.state(folder).streams["leaky"].failed, "it failed as it was to"

    output = "".join(one.stdout + one.stderr for one in said).encode()
    assert leaks(output, list(PLANTED.values())) == []
    assert {
        path: found for path in files_of(folder) if (found := leaks(path.read_bytes(), list(PLANTED.values())))
    } == {}

    keys = {
        path: json.loads(path.read_text()) for path in folder.path.rglob("*.json") if path.stat().st_mode & 0o77 == 0
    }
    secret = {key["secret_key"]: path for path, key in keys.items() if "secret_key" in key}
    assert secret, "there are join files"
    assert leaks(output, list(secret)) == []
    for path in files_of(folder):
        assert [key for key in leaks(path.read_bytes(), list(secret)) if secret[key] != path] == [], path


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_a_config_with_tokens_in_it_is_refused_without_repeating_them(tmp_path: Path, command: str) -> None:
    sp.write_config(tmp_path, streams="  a:")
    (tmp_path / "my.yaml").write_text(CONFIG_WITH_TOKENS.format(**PLANTED))
    done = sp.swarm(command, "my.yaml", f"defaults.hub_token={PLANTED['HF_TOKEN']}", cwd=tmp_path, check=2)
    assert leaks((done.stdout + done.stderr).encode(), [*PLANTED.values(), "hf_OtherOtherOtherOther"]) == []
    assert done.stderr.count("holds an access token or a password") >= 5, done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_error_that_nobody_expected_is_printed_without_them() -> None:
    code = f"""import sys; from swarm.redaction import print_uncaught; sys.excepthook = print_uncaught
raise OSError("no route with {PLANTED["HF_TOKEN"]}")"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **PLANTED}, check=False
    )
    assert done.stderr.rstrip().endswith(f"OSError: no route with {INSTEAD}")
    assert PLANTED["HF_TOKEN"] not in done.stderr, "the line of the source that is shown is no secret's place either"
