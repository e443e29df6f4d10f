"""What the command line asks of the trainer: can this base be used, how do rows look, what do base and adapter answer."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import toon
from swarm.facts import BaseFacts
from swarm.settings import StreamSettings
from tests.trainer import tiny
from tests.trainer.conftest import Bench
from trainer import ask, bases, hub, show

Make = Callable[..., StreamSettings]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_a_good_base_is_described_without_loading_it(base: Path, capsys: Said) -> None:
    assert bases.main(["--check", str(base), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)[str(base)]
    assert facts["folder"] == str(base)
    assert (facts["context_tokens"], facts["embedding_rows"], facts["chat_template"]) == (512, 259, True)
    assert (facts["hidden_size"], facts["layers"], facts["files"]) == (64, 2, ["model.safetensors"])
    assert facts["parameters"] == 259 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64
    assert bases.main(["--check", str(base)]) == 0
    assert "0.1 M parameters" in capsys.readouterr().out


def test_several_bases_are_inspected_at_once_with_what_is_wrong_with_some(base: Path, capsys: Said) -> None:
    assert bases.main([f"--check={base}", "--check=/no/such", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told[str(base)]["layers"] == 2
    assert told["/no/such"]["problem"] == "/no/such is neither a folder nor a hub name"


def test_what_is_known_is_kept_until_a_file_of_the_base_changes(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    inspected: list[Path] = []
    inspect = bases._inspected

    def counted(folder: Path, *arguments: Any, **more: Any) -> BaseFacts:
        inspected.append(folder)
        return inspect(folder, *arguments, **more)

    monkeypatch.setattr(bases, "_inspected", counted)
    first = bases.facts_of(str(copy))
    assert bases.facts_of(str(copy)) == first
    assert len(inspected) == 1
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 99}))
    assert bases.facts_of(str(copy)).context_tokens == 99
    assert len(inspected) == 2
    [*_, kept] = (tmp_path / "cache/toonswarm/bases").iterdir()
    kept.write_text("{")
    assert bases.facts_of(str(copy)).layers == 2, "a torn cache is made again"


def test_other_weight_files_beside_those_that_are_loaded_do_not_count(copy: Path) -> None:
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    facts = bases.facts_of(str(copy))
    assert (facts.files, facts.bytes) == (("model.safetensors",), (copy / "model.safetensors").stat().st_size)


def add_tokens(folder: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(folder)


def spoil_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def spoil_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40))


def shards_without_one(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / bases.INDEX).write_text('{"weight_map": {"a": "model-2.safetensors"}}')


def set_config(**values: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "has no config.json; name a folder that save_pretrained wrote",
        ),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read ("),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer; save"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors; name the folder"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "has pickled weights only (pytorch_model.bin), which can hold code; save it again with save_pretrained",
        ),
        (spoil_weights, "model.safetensors is torn ("),
        (spoil_header, "model.safetensors is no safetensors file"),
        (set_config(model_type="martian"), "makes no causal language model of"),
        (set_config(hidden_size="wide"), "makes no causal language model of"),
        (set_config(auto_map={"AutoConfig": "own.Config"}, model_type="own"), "brings code of its own; read that code"),
        (add_tokens, "its tokenizer has 260 tokens, the base 259; save both again after resize_token_embeddings"),
        (
            shards_without_one,
            "model-2.safetensors is missing; download",
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


def test_a_base_that_outgrows_the_disk_is_refused(base: Path) -> None:
    far = replace(bases.facts_of(str(base)), name="o/n", bytes=1 << 60)
    with pytest.raises(bases.UserError, match=r"GB on disk, .* GB are free in .*; free some space, or set HF_HOME"):
        hub.refuse_full_disk(far)


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
    answers = [{"base": "\x1b]0;x\x07", "adapter": "fine", "base_cut": False, "adapter_cut": True, "max_new_tokens": 6}]
    monkeypatch.setattr(ask, "asked", lambda *_: answers)
    (tmp_path / "adapter_config.json").write_text("{}")
    asking = ["--run", str(tmp_path), "--adapter", ".", *given, "hi"]
    assert ask.main(asking) == 0
    cut = "[cut after 6 tokens: --max-new-tokens N]"
    assert capsys.readouterr().out == f"base:    \\x1b]0;x\\x07\nadapter: fine {cut}\n"
    assert ask.main([*asking, "--toon"]) == 0
    assert toon.decode(capsys.readouterr().out) == answers[0]
    answers[0]["max_new_tokens"] = 4
    assert ask.main(asking) == 0
    assert capsys.readouterr().out.endswith("adapter: fine [cut after 4 tokens: the base has no more positions]\n")


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
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"base", "adapter", "base_cut", "adapter_cut", "max_new_tokens"}
    assert answer["base_cut"] is True  # an untrained base never ends
    assert ask.main(["--adapter", path, *common[:-2], "long " * 80]) == 2
    assert "PROMPT: the question has about 4" in capsys.readouterr().err
    assert ask.main(["--adapter", "nothing", *common]) == 2
    assert "holds no adapter" in capsys.readouterr().err
