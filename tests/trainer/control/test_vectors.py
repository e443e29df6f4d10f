"""Row X10: control vectors from pairs of prompts, in llama.cpp's form, applied at a scale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from torch import Tensor

from swarm.errors import UserError
from tests.trainer.loop import decoders
from tests.trainer.tiny import save_base, tokenizer
from trainer.control import directions, vectors
from trainer.control.directions import direction
from trainer.ship.control_vector import _prompts, _rows, _states, found_in, main
from trainer.ship.probe import loaded
from trainer.ship.sources import sources_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
WORDS = ("cat", "tree", "a long road", "7 + 8", "Monday", "blue sea")
PAIRS = [{"positive": f"{word}, gladly!", "negative": f"{word}, alas?"} for word in WORDS]


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three layers, so that a last one can be left out."""
    folder = tmp_path_factory.mktemp("vectors") / "base"
    words = tokenizer()
    decoders.decoder(vocab_size=len(words), num_hidden_layers=3).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def pairs_in(folder: Path, rows: list[dict[str, str]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ---- directions ------------------------------------------------------------------------------------------------------


def test_the_axis_is_half_of_what_the_classes_are_apart_and_the_middle_is_the_bias_of_the_baseline() -> None:
    u = torch.nn.functional.normalize(drawn(40, seed=1), dim=0)
    baseline = drawn(30, 40, seed=2)
    noise = [0.02 * drawn(30, 40, seed=seed) for seed in (3, 4)]
    found = direction(baseline - 1.0 * u + noise[0], baseline + 2.0 * u + noise[1], baseline)
    assert found is not None and found.ratio > 100
    torch.testing.assert_close(found.axis.float(), 1.5 * u, atol=0.02, rtol=0)
    torch.testing.assert_close(found.middle.float(), 0.5 * u, atol=0.02, rtol=0)
    alone = direction(baseline - 1.0 * u + noise[0], baseline + 2.0 * u + noise[1])
    assert alone is not None and float(alone.middle.norm()) < 1e-6
    torch.testing.assert_close(alone.axis.float(), 1.5 * u, atol=0.05, rtol=0)


def test_eigenvectors_within_the_span_are_those_of_the_whole_matrix() -> None:
    a, b = drawn(5, 24, seed=5).double(), drawn(5, 24, seed=6).double()
    found = directions._candidates(a, b)
    whole = a.T @ b + b.T @ a
    values = (found.T @ whole @ found).diagonal()
    torch.testing.assert_close(whole @ found, found * values, atol=1e-9, rtol=1e-9)
    expected = torch.linalg.eigvalsh(whole)
    torch.testing.assert_close(values.sort().values, expected[expected.abs() > 1e-9 * expected.abs().max()])


def test_classes_that_do_not_differ_have_no_direction() -> None:
    states = drawn(200, 3, seed=7)
    assert direction(states[:100], states[100:], torch.zeros(100, 3)) is None


# ---- from prompts to a file ------------------------------------------------------------------------------------------


def test_vectors_of_pairs_are_written_as_llama_cpp_reads_them_and_move_one_class_to_the_other(
    base: str, tmp_path: Path
) -> None:
    path = pairs_in(tmp_path, PAIRS)
    done = found_in(base, path, tmp_path / "glad.gguf")
    assert (list(done.layers), done.middle, done.pairs) == ([1, 2], None, 6)
    file = GGUFReader(tmp_path / "glad.gguf")
    assert file.fields["general.architecture"].contents() == "controlvector"
    assert file.fields["controlvector.model_hint"].contents() == "llama"
    assert [(one.name, one.tensor_type.name, list(one.shape)) for one in file.tensors] == [
        (f"direction.{layer}", "F32", [32]) for layer in (1, 2)
    ]
    model, made = loaded(Path(base)), vectors.read(tmp_path / "glad.gguf")
    prompts = _prompts(_rows(path), path, base)
    unit = torch.nn.functional.normalize(made[1], dim=0)

    def along(name: str) -> float:
        return float((_states(model, prompts[name])[:, 1] @ unit).mean())

    low, high = along("negative"), along("positive")
    assert float(made[1].norm()) == pytest.approx((high - low) / 2, rel=1e-4)
    only = {1: made[1]}
    for scale, expected in ((2.0, high), (1.0, (low + high) / 2), (0.0, low)):
        with vectors.applied(model, only, scale):
            assert along("negative") == pytest.approx(expected, abs=1e-3)
    assert along("negative") == low


def test_system_messages_before_one_prompt_and_a_baseline_give_the_middle_too(tmp_path: Path) -> None:
    folder = str(save_base(tmp_path / "base"))
    systems = {"positive": "Be glad.", "negative": "Be sad.", "baseline": ""}
    path = pairs_in(tmp_path, [{"prompt": word, **systems} for word in WORDS])
    done = found_in(folder, path, tmp_path / "glad.gguf", least_ratio=0.01)
    assert done.middle == str(tmp_path / "glad-middle.gguf")
    assert vectors.read(tmp_path / "glad-middle.gguf").keys() == vectors.read(tmp_path / "glad.gguf").keys() == {1}


@pytest.mark.parametrize(
    ("rows", "how", "words"),
    [
        ([{"positive": "a"}], {}, "is no pair"),
        (PAIRS[:1], {}, "one says nothing of what varies"),
        ([{**PAIRS[0], "baseline": "x"}, PAIRS[1]], {}, "some rows have a baseline"),
        ([{"positive": 3, "negative": "b"}] * 2, {}, "something else than texts"),
        (PAIRS, {"chosen": "0:1"}, "layer 0 has no place"),
        (PAIRS, {"chosen": "1:9"}, "--layers: '1:9' is not within the 3 layers"),
        (PAIRS, {"least_ratio": 1e9}, "no layer tells positive from negative"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_gives_no_vectors_is_refused_and_nothing_is_written(
    base: str, tmp_path: Path, rows: list[dict[str, Any]], how: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        found_in(base, pairs_in(tmp_path, rows), tmp_path / "out.gguf", **how)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_a_family_whose_layers_are_not_known_is_refused_before_it_is_loaded(base: str, tmp_path: Path) -> None:
    """And where vectors are to be added: under the name of what was given."""
    folder = str(tmp_path / "gpt2")
    words = tokenizer()
    decoders.decoder("gpt2", vocab_size=len(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    what = "it is not known where the layers of gpt2 add to the residual stream; take a base of llama"
    with pytest.raises(UserError, match=f"{folder}: {what}"):
        found_in(folder, pairs_in(tmp_path, PAIRS), tmp_path / "out.gguf")
    with pytest.raises(UserError, match=f"--control-vector: {what}"):
        vectors.put_on(decoders.decoder("gpt2"), {1: torch.zeros(32)})


def test_a_file_of_another_model_or_none_at_all_is_refused(base: str, tmp_path: Path) -> None:
    vectors.write({1: torch.zeros(8)}, "llama", tmp_path / "narrow.gguf")
    with pytest.raises(UserError, match="model of width 8; this one has 3 of 32"):
        vectors.put_on(loaded(Path(base)), *vectors.read_scaled([str(tmp_path / "narrow.gguf")])[0])
    (tmp_path / "text.gguf").write_text("no")
    with pytest.raises(UserError, match="holds no control vectors"):
        vectors.read(tmp_path / "text.gguf")
    with pytest.raises(UserError, match="'much' is no scale"):
        vectors.read_scaled(["a.gguf:much"])


def test_the_command_and_what_asks_models_take_them(
    base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`swarm compare`, `chat` and `serve` load models so."""
    from trainer.place import Place
    from trainer.ship.answering import Sampling
    from trainer.ship.models import Models

    out = tmp_path / "glad.gguf"
    assert main([base, str(pairs_in(tmp_path, PAIRS)), "--out", str(out)]) == 0
    assert "2 layers from 6 pairs" in capsys.readouterr().out
    assert main([base, str(tmp_path / "pairs.jsonl"), "--out", str(out)]) == 2
    answers = []
    for scale in (0.0, 1.0, -40.0):
        models = Models(sources_of([base], vectors=[f"{out}:{scale}"]), Place(tmp_path, "cpu"))
        answers.append(models.answer(models.names[0], [5, 6, 7], Sampling(8)).text)
    bare = Models(sources_of([base]), Place(tmp_path, "cpu"))
    assert answers[0] == bare.answer(bare.names[0], [5, 6, 7], Sampling(8)).text != answers[2]
