"""What the command line asks of the trainer: can this base be used, how do rows look, what do base and adapter answer."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import toon
from swarm.settings import StreamSettings
from tests.trainer.conftest import Bench
from trainer import ask, bases, show

Make = Callable[..., StreamSettings]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_a_good_base_is_described_without_loading_it(base: Path, capsys: Said) -> None:
    assert bases.main(["--check", str(base), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["folder"] == str(base)
    assert (facts["context"], facts["vocabulary"], facts["chat_template"]) == (512, 259, True)
    assert (facts["hidden"], facts["layers"]) == (64, 2)
    assert facts["parameters"] == 259 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    assert facts["linear_dims"] == 2 * (4 * (64 + 64) + 3 * (64 + 128))
    assert bases.main(["--check", str(base)]) == 0
    assert "0.1 M parameters" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_the_rank_times_linear_dims_is_what_a_lora_trains(base: Path, bench: Bench, settings: Make) -> None:
    trained = bench.trained(settings(max_steps=1, lora_r=8))["trained"]
    assert trained.trainable == 8 * bases.facts_of(str(base)).linear_dims


def spoil_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def spoil_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "has no config.json; name a folder that save_pretrained wrote",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read ("),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights (*.safetensors)"),
        (spoil_weights, "model.safetensors is torn ("),
        (spoil_header, "model.safetensors is no safetensors file"),
        (
            lambda folder: (folder / bases.INDEX).write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
            "is missing; download",
        ),
    ],
)
def test_a_base_that_cannot_be_read_is_an_error_in_one_line(
    copy: Path, spoil: Callable[[Path], object], words: str, capsys: Said
) -> None:
    spoil(copy)
    assert bases.main(["--check", str(copy)]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("base_model: ") and words in said.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody/nothing-at-all", "nobody/nothing-at-all is not on this machine; go online and unset HF_HUB_OFFLINE"),
        ("/no/such/folder", "/no/such/folder is neither a folder nor a hub name"),
    ],
)
def test_a_base_that_is_not_here_is_an_error_with_a_fix(
    name: str, words: str, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert bases.main(["--check", name]) == 2
    assert words in capsys.readouterr().err


def test_a_base_that_outgrows_memory_or_disk_is_refused(
    base: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.resident.available_bytes", lambda: 100_000)
    assert bases.main(["--check", str(base)]) == 2
    assert "GB of memory, 0.0 GB are free; take a smaller base, or adapter: qlora" in capsys.readouterr().err
    assert bases.main(["--check", str(base), "--adapter", "qlora"]) == 0
    assert bases.main(["--check", str(base), "--device", "gpu0"]) == 0
    far = bases.BaseFacts("o/n", None, 1, 1 << 60, None, None, chat_template=True)
    with pytest.raises(bases.UserError, match=r"GB on disk, .* GB are free in .*; free some space, or set HF_HOME"):
        bases.refuse_what_does_not_fit(far, "gpu0", "lora")


def written(settings: StreamSettings, tmp_path: Path) -> str:
    path = tmp_path / "settings.json"
    path.write_text(settings.model_dump_json())
    return str(path)


def test_show_marks_what_is_counted_and_says_what_would_be_cut(settings: Make, tmp_path: Path, capsys: Said) -> None:
    assert show.main(["--settings", written(settings(), tmp_path), "--rows", "1"]) == 0
    where, *text = capsys.readouterr().out.rstrip("\n").split("\n")
    assert where.endswith("doubles.jsonl:1: 30 tokens, 2 supervised")
    assert "\n".join(text) == "<|im_start|>user\ndouble 0<|im_end|>\n<|im_start|>assistant\n[[0<|im_end|>]]"
    assert show.main(["--settings", written(settings(sequence_len=28), tmp_path), "--rows", "2", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["cut"], first["supervised"], second["where"].rpartition(":")[2]) == (2, 1, "2")


def test_what_rows_and_models_say_cannot_steer_a_terminal(
    settings: Make, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "evil.jsonl"
    data.write_text(json.dumps({"text": "a\tb\nc \x1b[2J\x9b1m\u3000"}) + "\n" + json.dumps({"no\x1btext": 1}) + "\n")
    given = ["--settings", written(settings(datasets=[{"path": str(data), "type": "text"}]), tmp_path)]
    assert show.main(given) == 0
    said = capsys.readouterr().out
    assert "a\tb\nc \\x1b[2J\\x9b1m\u3000" in said and "\x1b" not in said and "\x9b" not in said
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert show.main(given) == 0
    said = capsys.readouterr().out.replace(show.REVERSE, "").replace(show.PLAIN, "")
    assert "\x1b" not in said and "\x9b" not in said
    monkeypatch.undo()
    assert show.main([*given, "--toon", "--rows", "1"]) == 0
    as_toon = toon.decode(capsys.readouterr().out)
    assert show.main([*given, "--json", "--rows", "1"]) == 0
    assert as_toon == json.loads(capsys.readouterr().out)
    answers = [{"base": "\x1b]0;x\x07", "adapter": "fine"}]
    monkeypatch.setattr(ask, "asked", lambda *_: answers)
    (tmp_path / "adapter_config.json").write_text("{}")
    asking = ["--run", str(tmp_path), "--adapter", ".", *given, "hi"]
    assert ask.main(asking) == 0
    assert capsys.readouterr().out == "base:    \\x1b]0;x\\x07\nadapter: fine\n"
    assert ask.main([*asking, "--toon"]) == 0
    assert toon.decode(capsys.readouterr().out) == answers[0]


def test_show_tells_bad_rows_and_unreadable_settings(settings: Make, tmp_path: Path, capsys: Said) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    given = settings(datasets=[{"path": str(bad), "type": "text"}])
    assert show.main(["--settings", written(given, tmp_path)]) == 2
    assert f"{bad}:1: no column 'text'" in capsys.readouterr().out
    bad.write_text('{}\n{"text": "here"}\n')
    assert show.main(["--settings", written(given, tmp_path)]) == 0
    assert f"{bad}:1: no column 'text'" in capsys.readouterr().out
    bad.write_text("\n")
    assert show.main(["--settings", written(given, tmp_path)]) == 2
    assert capsys.readouterr().err == "datasets: hold no rows; put rows into the files, or name others\n"
    bad.write_text("{}\n")
    assert show.main(["--settings", str(bad)]) == 2
    assert "no settings of a stream" in capsys.readouterr().err
    given = settings(datasets=[{"path": "/nowhere/x.jsonl"}])
    assert show.main(["--settings", written(given, tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("datasets.path: no file matches")


@pytest.mark.filterwarnings("ignore::FutureWarning:transformers")
def test_ask_gives_both_answers_and_refuses_a_folder_without_an_adapter(
    bench: Bench, settings: Make, tmp_path: Path, capsys: Said
) -> None:
    given = settings()
    path = bench.trained(given)["trained"].path
    common = ["--run", str(bench.place.run_folder), "--settings", written(given, tmp_path), "double 4", "--json"]
    assert ask.main(["--adapter", path, *common]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"base", "adapter"}
    assert ask.main(["--adapter", "nothing", *common]) == 2
    assert "holds no adapter" in capsys.readouterr().err
